package cmd

import (
	"fmt"
	"strconv"
	"time"
)

// unknown stands for a value that is not known.
const unknown = "-"

// counted formats a number of things.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// rateText formats a rate per second with its significant digits.
func rateText(perSecond float64) string {
	if perSecond < 10 {
		return fmt.Sprintf("%.1f", perSecond)
	}
	return fmt.Sprintf("%.0f", perSecond)
}

// ageText formats how long ago something was.
func ageText(millis int64) string {
	if millis < 0 {
		return unknown
	}
	d := time.Duration(millis) * time.Millisecond
	if d < 10*time.Second {
		return d.Round(100*time.Millisecond).String() + " ago"
	}
	return d.Round(time.Second).String() + " ago"
}

// microsText formats a duration.
func microsText(micros int64) string {
	if micros == 0 {
		return unknown
	}
	return fmt.Sprintf("%.1fms", float64(micros)/1000)
}

// quoted formats any key as a single word.
func (p printer) quoted(key []byte) string {
	if p.hex {
		return p.bytes(key)
	}
	return strconv.Quote(string(key))
}

// spanEnd formats the end of a shard's span.
func (p printer) spanEnd(key []byte) string {
	if len(key) == 0 {
		return "∞"
	}
	return p.quoted(key)
}
