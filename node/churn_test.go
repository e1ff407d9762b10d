package node_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/shard"
)

// Moves, splits and restarts of nodes in any order, under writers: in the end every
// acknowledged put is there, groups are as the table says, nodes hold what it gives them
// and nothing else, and all replicas of a shard hold the same.
func TestChurn(t *testing.T) {
	t.Parallel()
	const steps, shardsMax = 20, 8
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:2", Edit: func(_ string, cfg *node.Config) { cfg.RaftLogEntries = 100 }})
	c.Add().Start(t)

	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	acknowledged := make([]int, 8)
	for i := range acknowledged {
		client := c.Client(t)
		writers.Go(func() {
			for n := 1; ctx.Err() == nil; n++ {
				// A put whose node stops may fail, and may be there all the same.
				attempt, stop := context.WithTimeout(ctx, 5*time.Second)
				if _, err := client.Put(attempt, spread(i, "churn"), fmt.Sprintf("%08d", n)); err == nil {
					acknowledged[i] = n
				}
				stop()
			}
		})
	}
	moves, splits := 0, 0
	for range steps {
		n := c.Nodes()[rng.IntN(4)]
		m := n.Inside().Map()
		d := m.Shards()[rng.IntN(len(m.Shards()))]
		switch what := rng.IntN(8); {
		case what == 0:
			n.Restart(t)
			continue
		case what == 1 && len(m.Shards()) < shardsMax:
			if _, err := n.Inside().Split(ctx, []byte(spread(rng.IntN(8), fmt.Sprint(rng.IntN(100)))), "churn"); err == nil {
				splits++
			}
		default:
			from, to := d.Replicas[rng.IntN(len(d.Replicas))].Node, shard.NodeID(0)
			for _, other := range m.Nodes() {
				if _, has := d.ReplicaOn(other.ID); !has {
					to = other.ID
				}
			}
			if _, err := n.Inside().Move(ctx, d.ID, from, to, "churn"); err == nil {
				moves++
			}
		}
		// Some go on while the next steps are taken; a shard that is held refuses another.
		if rng.IntN(2) == 0 {
			testcluster.Until(t, "the shard to be let go", func() bool { return n.Inside().Map().Operator(d.ID) == nil })
		}
	}
	cancel()
	writers.Wait()
	t.Logf("%d moves, %d splits, %v puts", moves, splits, acknowledged)
	require.Positive(t, moves)

	testcluster.Until(t, "all operators to end", func() bool { return len(c.Node(1).Inside().Map().Operators()) == 0 })
	for _, d := range c.Node(1).Inside().Map().Shards() {
		requireSameMembers(t, c, d.ID)
		for _, n := range c.Nodes() {
			if r, has := d.ReplicaOn(id(n)); has {
				requireHolds(t, n, d.ID, r.ID)
			} else {
				requireHolds(t, n, d.ID)
			}
		}
	}
	client := c.Client(t)
	for i, n := range acknowledged {
		got, err := client.Get(t.Context(), spread(i, "churn"))
		require.NoError(t, err)
		require.Len(t, got.Kvs, 1)
		require.GreaterOrEqual(t, string(got.Kvs[0].Value), fmt.Sprintf("%08d", n))
	}
	requireSame(t, c)
}
