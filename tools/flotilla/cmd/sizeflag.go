package cmd

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// sizeFlag is a flag of a number of bytes: 536870912, as etcd's flags take it, or 512MiB.
type sizeFlag int64

func (b *sizeFlag) String() string { return strconv.FormatInt(int64(*b), 10) }

// Type is what the help calls it.
func (b *sizeFlag) Type() string { return "bytes" }

// Set reads a whole number and perhaps its unit. A unit of ten's powers is none: who writes 512MB and has 512MiB in mind
// should not be given less unasked.
func (b *sizeFlag) Set(text string) error {
	for _, unit := range []struct {
		name  string
		bytes int64
	}{
		{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1},
	} {
		number, is := strings.CutSuffix(text, unit.name)
		if !is {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n > math.MaxInt64/unit.bytes || n < math.MinInt64/unit.bytes {
			break
		}
		*b = sizeFlag(n * unit.bytes)
		return nil
	}
	return fmt.Errorf("%q is not a number of bytes such as 536870912, 512MiB or 2GiB", text)
}
