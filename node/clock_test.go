package node_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
)

// A node whose clock is off proposes nothing and says why. The cluster goes on: the
// shards it led are led by others.
func TestClockOffByAnHour(t *testing.T) {
	t.Parallel()
	for name, offset := range map[string]time.Duration{"ahead": time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
			bad, good := c.Node(2), c.Node(1)
			bad.Clock.Set(offset)
			testcluster.Until(t, "the node to say it", func() bool { return bad.Logged("not proposing: this node's clock is") })
			testcluster.Eventually(t, "its status to say it", func(ctx context.Context) error {
				status, err := c.Client(t, bad).Status(ctx, bad.ClientAddr())
				if err == nil && len(status.Errors) == 0 {
					err = errors.New("no errors")
				}
				return err
			})
			testcluster.Until(t, "others to lead", func() bool { return leads(bad) == 0 })
			for i := range 8 {
				put(t, c.Client(t, good), spread(i, "good"), "v")
				put(t, c.Client(t, bad), spread(i, "bad"), "v") // it takes requests to those who may
			}
			bad.Clock.Set(0)
			testcluster.Until(t, "the node to trust itself again", func() bool { return bad.Logged("clock is in bounds again") })
			put(t, c.Client(t, bad), spread(0, "mended"), "v")
		})
	}
	t.Run("before the first start", func(t *testing.T) {
		t.Parallel()
		c := testcluster.New(t, testcluster.Options{Splits: "uniform:4"})
		c.Node(2).Clock.Set(time.Hour)
		c.StartAll(t)
		last := put(t, c.Client(t, c.Node(2)), spread(0, "k"), "v")
		// No revision was minted by the wrong clock.
		require.Less(t, shard.Revision(last).Tick(), shard.TickAt(time.Now().Add(time.Minute)))
	})
}

// leads is how many shards the node leads, as it sees it.
func leads(n *testcluster.Node) int {
	count := 0
	for _, d := range n.Inside().Map().Shards() {
		if r, ok := n.Inside().Host().Replica(d.ID); ok && r.Leads() {
			count++
		}
	}
	return count
}
