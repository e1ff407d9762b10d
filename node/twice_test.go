package node_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// O1: every node carries out every operator, all at a time. Each comes to its end as if one
// had done it.
func TestAllControllersAtATime(t *testing.T) {
	t.Parallel()
	c := moveCluster(t, func(_ string, cfg *node.Config) { cfg.Knobs.AllControl, cfg.TickInterval = true, steadyTick })
	ids := make([]shard.NodeID, 4)
	for i, n := range c.Nodes() {
		ids[i] = id(n)
	}
	load := startLoad(t, c)
	first := c.Node(1)
	for round := range 6 {
		for _, group := range []shard.ID{theShard(first).ID, shard.MetaID} {
			d := first.Inside().Map().Shard(group)
			to := ids[0]
			for _, n := range ids {
				if _, has := d.ReplicaOn(n); !has {
					to = n
				}
			}
			from := d.Replicas[round%3].Node
			beginMove(t, first, group, from, to)
			requireMoved(t, first, group, from, to)
			require.Len(t, first.Inside().Map().Shard(group).Replicas, 3)
		}
		requireSameMembers(t, c, theShard(first).ID)
		if round%2 == 0 {
			before := len(first.Inside().Map().Shards())
			testcluster.Eventually(t, "the split to begin", func(ctx context.Context) error {
				_, err := first.Inside().Split(ctx, fmt.Appendf(nil, "load/%d", 2+round), "a test")
				return err
			})
			testcluster.Until(t, "the split to end", func() bool { return len(first.Inside().Map().Shards()) == before+1 })
		}
	}
	load.stop(t)
	load.requireAll(t, c.Client(t))
	requireSame(t, c)
}

// held stops a node between a plan and its steps.
type held struct {
	mu      sync.Mutex
	name    string
	reached chan struct{}
	resume  chan struct{}
}

// planned is node.Knobs.Planned.
func (h *held) planned(ctx context.Context, name string) {
	h.mu.Lock()
	hit := h.name == name
	if hit {
		h.name = ""
	}
	h.mu.Unlock()
	if !hit {
		return
	}
	close(h.reached)
	select {
	case <-h.resume:
	case <-ctx.Done():
	}
}

// Q1, Q2: a balancer that was held up after it had planned begins nothing of what another
// has begun meanwhile; and what is on its way is not planned again, whoever plans.
func TestAPlanIsAppliedOnce(t *testing.T) {
	t.Parallel()
	h := &held{reached: make(chan struct{}), resume: make(chan struct{})}
	c := testcluster.Start(t, testcluster.Options{Balance: true, Splits: "uniform:6", Tick: steadyTick, Edit: func(_ string, cfg *node.Config) { cfg.Knobs.Planned = h.planned }})
	first := c.Node(1)
	briskly(t, first, map[string]string{"rebalance": "off", "balance-gap": "0.05"})
	for _, d := range first.Inside().Map().Shards() {
		_, err := admin(t, c, first).Transfer(t.Context(), &adminpb.TransferRequest{Shard: uint64(d.ID), To: "n1"})
		require.NoError(t, err)
	}
	testcluster.Until(t, "one node to lead all", func() bool { return leads(first) == 6 })
	// They lead nothing for a while after they restart, so what begins stays on its way.
	for _, n := range others(c, first) {
		n.Restart(t)
	}
	var planned []*adminpb.Step
	testcluster.Eventually(t, "figures that are believed", func(ctx context.Context) error {
		reply, err := admin(t, c, first).Rebalance(ctx, &adminpb.RebalanceRequest{DryRun: true})
		planned = reply.GetBegun()
		if err == nil && len(planned) == 0 {
			err = errors.New("nothing is planned")
		}
		return err
	})

	h.mu.Lock()
	h.name = "n2"
	h.mu.Unlock()
	late := make(chan []placement.Step)
	go func() {
		begun, err := c.Node(2).Inside().Rebalance(t.Context())
		if err != nil {
			t.Error(err)
		}
		late <- begun
	}()
	<-h.reached
	begun, err := first.Inside().Rebalance(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, begun)
	again, err := c.Node(3).Inside().Rebalance(t.Context())
	require.NoError(t, err)
	require.Empty(t, again, "it is on its way")
	// Somebody wants one of them otherwise.
	moved := begun[0]
	_, err = first.Inside().Propose(t.Context(), placement.Prefer(first.Inside().Map().Shard(moved.Shard), moved.From))
	require.NoError(t, err)
	version := first.Inside().Map().Version()
	close(h.resume)
	for _, s := range <-late {
		require.NotEqual(t, moved.Shard, s.Shard, "it was decided on another descriptor")
		// What was begun before changes nothing. What only the late one has planned, from figures of its own, it may begin.
		if !slices.ContainsFunc(begun, func(b placement.Step) bool { return b.Shard == s.Shard }) {
			version++
		}
	}
	testcluster.Until(t, "the newest table", func() bool { return first.Inside().Map().Version() >= version })
	require.Equal(t, moved.From, first.Inside().Map().Shard(moved.Shard).PreferredNode)
	require.Equal(t, version, first.Inside().Map().Version(), "nothing was begun twice")
}
