package apply_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 draws one")

// seeded returns a generator whose seed is told when the test fails.
func seeded(t *testing.T) *generator {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("replay with: go test ./shard/apply -run '%s' -seed=%d", t.Name(), seed)
		}
	})
	return &generator{Rand: rand.New(rand.NewPCG(seed, 0)), t: t}
}

// One log, fed to replicas in different ways, gives one state and one list of
// results (A1): entry by entry, all at once, in random groups, with restarts and
// replayed entries, and with nobody waiting for results.
func TestReplicasAgree(t *testing.T) {
	g := seeded(t)
	for round := range 5 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			log := g.logOf(120)
			want := newFixture(t)
			var expected []string
			for _, cmds := range log {
				expected = append(expected, results(want.apply(cmds...)))
			}
			hash := want.hash()

			require.Equal(t, hash, feed(t, g, log, expected, feeding{group: len(log)}), "all at once")
			require.Equal(t, hash, feed(t, g, log, expected, feeding{group: 10}), "in groups")
			require.Equal(t, hash, feed(t, g, log, expected, feeding{group: 10, restart: true}), "with restarts")
			require.Equal(t, hash, feed(t, g, log, nil, feeding{group: 10, restart: true}), "unwanted")
		})
	}
}

type feeding struct {
	group   int  // at most so many entries in an Update
	restart bool // sometimes, and go over the last entries once more
}

// feed applies the log to a new replica, checks the results if some are expected,
// and returns the hash of the state.
func feed(t *testing.T, g *generator, log [][]*shardpb.Command, expected []string, how feeding) string {
	f := newFixture(t)
	next := 0
	for next < len(log) {
		first := next
		if how.restart && g.oneIn(3) {
			before := f.machine.Leases().State()
			f.restart()
			require.True(t, proto.Equal(before, f.machine.Leases().State()), "leases are stored as they are kept")
			first = max(0, next-g.IntN(5))
		}
		last := min(len(log), next+1+g.IntN(how.group))
		if how.group >= len(log) {
			last = len(log)
		}
		entries := make([]apply.Entry, 0, last-first)
		for i := first; i < last; i++ {
			entries = append(entries, apply.Entry{Index: uint64(i + 1), Data: encodeBatch(t, log[i]...)})
		}
		require.NoError(t, f.machine.Update(entries, func(*shardpb.Batch) bool { return expected != nil }))
		for i, e := range entries {
			switch {
			case first+i < next:
				require.Nil(t, e.Results, "entry %d was applied before", e.Index)
			case expected == nil:
				require.Nil(t, e.Results)
			default:
				require.Equal(t, expected[first+i], results(e.Results), "entry %d", e.Index)
			}
		}
		next = last
		checkOrder(t, f.machine.View())
	}
	return f.hash()
}

// checkOrder checks A5.
func checkOrder(t testing.TB, v shard.View) {
	require.LessOrEqual(t, v.Compacted, v.Rev)
	require.LessOrEqual(t, v.Rev, v.Floor)
}
