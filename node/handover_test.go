package node_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// Leadership goes from node to node while clients write. No put fails, and no heir refuses
// because it has not applied what it knows to be committed: writes would have to wait for
// an election timeout.
func TestLeadersHandOverUnderLoad(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Tick: steadyTick})
	first := c.Node(1)
	refusals := func() (times int) {
		for _, n := range c.Nodes() {
			times += n.TimesLogged("campaign skipped")
		}
		return times
	}
	atFirst := refusals() // who stands for election early may be refused once, at the start
	load := startLoad(t, c)
	for range 6 {
		leader := id(leaderOf(t, c, first, ""))
		d := theShard(first)
		heir := d.Replicas[slices.IndexFunc(d.Replicas, func(r shard.Replica) bool { return r.Node != leader })].Node
		_, err := first.Inside().Propose(t.Context(), placement.Prefer(d, heir))
		require.NoError(t, err)
		testcluster.Until(t, "the preferred node to lead", func() bool { return id(leaderOf(t, c, first, "")) == heir })
	}
	load.stop(t)
	for _, n := range c.Nodes() {
		load.requireAll(t, c.Client(t, n))
	}
	require.Equal(t, atFirst, refusals())
}

// That an heir declines reaches the leader, whichever node it is on: otherwise writes would wait for it.
func TestAnHeirThatDeclinesSaysSo(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	first := c.Node(1)
	d := theShard(first)
	for _, r := range d.Replicas {
		if r.Node == id(leaderOf(t, c, first, "")) {
			continue // it leads
		}
		err := first.Inside().Heir(d.ID, r).Succeed(t.Context(), replica.Handover{Term: 1 << 40}) // of no leader
		require.ErrorIs(t, err, replica.ErrDeclined)
	}
}

// An heir whose votes are slow, as on slow disks or far away, becomes the leader without a put that fails: none is proposed
// by a leader who is about to lose office.
func TestLeadersHandOverToAnHeirWithSlowVotes(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Tick: steadyTick})
	first := c.Node(1)
	leader := leaderOf(t, c, first, "")
	heir := others(c, leader)[0]
	for _, n := range others(c, heir) {
		c.Network().Delay(heir.Name, n.Name, 300*time.Millisecond)
	}
	load := startLoad(t, c)
	_, err := first.Inside().Propose(t.Context(), placement.Prefer(theShard(first), id(heir)))
	require.NoError(t, err)
	testcluster.Until(t, "the preferred node to lead", func() bool { return leaderOf(t, c, first, "") == heir })
	load.stop(t)
	for _, n := range c.Nodes() {
		load.requireAll(t, c.Client(t, n))
	}
}
