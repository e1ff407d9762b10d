package compare

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/flotilla-kv/flotilla/benchmarks/peer"
)

// System is one contestant.
type System struct {
	Label  string
	Kind   peer.Kind
	Shards int // 0 where it means nothing
}

// Systems expands two names into contestants: Flotilla once for each number of shards. A name may
// bring a binary of its own, as in flotilla=PATH; without one it is taken from path. Equal names
// are distinguished by a letter.
func Systems(a, b string, path map[string]string, shards []int) ([]System, error) {
	var out []System
	nameA, ownA, _ := strings.Cut(a, "=")
	nameB, ownB, _ := strings.Cut(b, "=")
	for i, s := range []struct{ name, own string }{{nameA, ownA}, {nameB, ownB}} {
		kind, err := peer.For(s.name, cmp.Or(s.own, path[s.name]))
		if err != nil {
			return nil, err
		}
		label := s.name
		if nameA == nameB {
			label += " " + string(rune('a'+i))
		}
		if _, sharded := kind.(peer.Flotilla); !sharded {
			out = append(out, System{Label: label, Kind: kind})
			continue
		}
		for _, n := range shards {
			if n < 1 {
				return nil, fmt.Errorf("%d shards: need at least 1", n)
			}
			out = append(out, System{Label: fmt.Sprintf("%s/%d", label, n), Kind: kind, Shards: n})
		}
	}
	return out, nil
}

// order is the order of the systems in a round (M3).
func order(systems []System, round int) []System {
	out := slices.Clone(systems)
	if round%2 == 1 {
		slices.Reverse(out)
	}
	return out
}
