package node_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/watch"
)

// follower follows a node's replica of the shard of a key, by one feed after another.
type follower struct {
	t       *testing.T
	node    *testcluster.Node
	feed    *watch.Subscription
	ready   chan struct{}
	through shard.Revision
	revs    []int64
}

// follow opens a feed right behind the last one.
func (f *follower) follow(key string) {
	f.t.Helper()
	f.ready = make(chan struct{}, 1)
	d := f.node.Inside().Map().Lookup([]byte(key))
	r, ok := f.node.Inside().Host().Replica(d.ID)
	require.True(f.t, ok)
	var err error
	f.feed, err = r.Subscribe(watch.Options{Epoch: d.Epoch, Span: d.Span, From: f.through + 1, Ready: func() {
		select {
		case f.ready <- struct{}{}:
		default:
		}
	}})
	require.NoError(f.t, err)
}

// until polls until the feed has told all up to the revision, or has ended.
func (f *follower) until(rev int64) error {
	f.t.Helper()
	f.feed.Await(shard.Revision(rev))
	for f.through < shard.Revision(rev) {
		select {
		case <-f.ready:
		case <-time.After(20 * time.Second):
			f.t.Fatalf("%s: at revision %s of %d, nobody called ready", f.node.Name, f.through, rev)
		}
		c, err := f.feed.Poll(5)
		if err != nil {
			return err
		}
		for _, e := range c.Events {
			f.revs = append(f.revs, e.Kv.ModRevision)
		}
		f.through = c.Through
	}
	return nil
}

// Every replica tells every write once and in order, followers and leaders alike, also
// those of the time when it was down.
func TestFeedsOfEveryReplica(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	begin := put(t, c.Client(t), "k", "before")
	var followers []*follower
	for _, n := range c.Nodes() {
		f := &follower{t: t, node: n, through: shard.Revision(begin)}
		f.follow("k")
		followers = append(followers, f)
	}
	var acknowledged []int64
	writes := func(n int, through ...*testcluster.Node) int64 {
		client := c.Client(t, through...)
		for i := range n {
			acknowledged = append(acknowledged, put(t, client, fmt.Sprintf("k%d", i%5), fmt.Sprint(i)))
		}
		return acknowledged[len(acknowledged)-1]
	}
	last := writes(30)
	for _, f := range followers {
		require.NoError(t, f.until(last))
	}
	down := leaderOf(t, c, c.Node(1), "k")
	down.Stop()
	last = writes(30, others(c, down)...)
	down.Start(t)
	for _, f := range followers {
		if f.node == down {
			require.ErrorIs(t, f.until(last), shard.ErrStopped)
			f.follow("k")
		}
	}
	last = writes(10)
	for _, f := range followers {
		require.NoError(t, f.until(last))
		require.IsIncreasing(t, f.revs)
		require.Subset(t, f.revs, acknowledged)
		require.Equal(t, followers[0].revs, f.revs)
		f.feed.Close()
	}
}
