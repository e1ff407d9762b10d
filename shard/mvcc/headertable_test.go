package mvcc

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// A table that grows, is divided many times and loses headers again has at each moment what a map has.
func TestHeaderTable(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	table, model := newHeaderTable(), make(map[string]*cached)
	var keys []string // of the model
	check := func(key string) {
		require.Same(t, model[key], table.find(table.hash([]byte(key)), []byte(key)), key)
	}
	for _, phase := range []struct {
		steps, adds int // of ten
	}{{20_000, 8}, {20_000, 2}, {20_000, 5}, {100_000, 9}, {100_000, 1}} {
		for range phase.steps {
			if len(keys) == 0 || r.IntN(10) < phase.adds {
				key := fmt.Sprintf("/registry/%d", r.IntN(1_000_000))
				if model[key] == nil {
					h := &cached{key: key}
					model[key] = h
					keys = append(keys, key)
					table.add(h)
				}
				check(key)
				continue
			}
			i := r.IntN(len(keys))
			key := keys[i]
			keys[i] = keys[len(keys)-1]
			keys = keys[:len(keys)-1]
			table.remove(model[key])
			delete(model, key)
			check(key)
		}
		for key := range model {
			check(key)
		}
	}
	require.Greater(t, len(table.tables), 64)
}

// Headers that all want the same slot are found, and removed one by one from anywhere among them.
func TestHeadersOfOneSlot(t *testing.T) {
	table := newHeaderTable()
	at := table.tables[0]
	var all []*cached
	for i := uint64(0); len(all) < 5; i++ {
		key := fmt.Sprint(i)
		if at.home(table.hash([]byte(key))) == uint64(len(at.slots)-1) { // the last: they go on at the first
			all = append(all, &cached{key: key})
			table.add(all[len(all)-1])
		}
	}
	for _, gone := range []int{1, 0, 3, 4, 2} {
		table.remove(all[gone])
		table.remove(all[gone]) // it is not there any more
		table.remove(&cached{key: all[gone].key})
		all[gone].gone = true
		for _, h := range all {
			found := table.find(table.hash([]byte(h.key)), []byte(h.key))
			if h.gone {
				require.Nil(t, found)
			} else {
				require.Same(t, h, found)
			}
		}
	}
	require.Zero(t, at.used)
}
