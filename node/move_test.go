package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
)

// A replica moves while clients write, watch and keep leases alive; then the one that
// leads. No request fails, nothing is lost.
func TestMoveUnderLoad(t *testing.T) {
	t.Parallel()
	c := moveCluster(t, func(_ string, cfg *node.Config) {
		cfg.RaftLogEntries, cfg.TickInterval = 100, steadyTick // a joiner needs a snapshot
	})
	first, fourth := c.Node(1), c.Node(4)
	client := c.Client(t)
	lease, err := client.Grant(t.Context(), 3600)
	require.NoError(t, err)
	_, err = client.Put(t.Context(), "leased", "v", clientv3.WithLease(lease.ID))
	require.NoError(t, err)
	for i := range 300 {
		put(t, client, fmt.Sprintf("old/%03d", i), "v")
	}
	load := startLoad(t, c)
	d := theShard(first)
	leader := id(leaderOf(t, c, first, ""))
	victim := d.Replicas[slices.IndexFunc(d.Replicas, func(r shard.Replica) bool { return r.Node != leader })].Node

	beginMove(t, first, d.ID, victim, id(fourth))
	requireMoved(t, first, d.ID, victim, id(fourth))
	requireHolds(t, nodeOf(t, c, victim), d.ID)
	requireHolds(t, fourth, d.ID, d.NextReplicaID)

	beginMove(t, first, d.ID, leader, victim)
	requireMoved(t, first, d.ID, leader, victim)
	requireHolds(t, nodeOf(t, c, leader), d.ID)
	requireHolds(t, nodeOf(t, c, victim), d.ID, d.NextReplicaID+1)

	load.stop(t)
	for _, n := range c.Nodes() {
		through := c.Client(t, n)
		load.requireAll(t, through)
		old, err := through.Get(t.Context(), "old/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		require.NoError(t, err)
		require.EqualValues(t, 300, old.Count)
		ttl, err := through.TimeToLive(t.Context(), lease.ID, clientv3.WithAttachedKeys())
		require.NoError(t, err)
		require.Equal(t, [][]byte{[]byte("leased")}, ttl.Keys)
	}
	_, err = client.Revoke(t.Context(), lease.ID)
	require.NoError(t, err)
	got, err := client.Get(t.Context(), "leased")
	require.NoError(t, err)
	require.Empty(t, got.Kvs)
}

// Whoever stops, before whichever step: the move comes to its end, no acknowledged write is
// lost, and a node that was down keeps nothing that was taken from it.
func TestMoveGoesOnAfterStops(t *testing.T) {
	t.Parallel()
	stop := newInterruption()
	c := moveCluster(t, func(_ string, cfg *node.Config) { cfg.Knobs.Operator = stop.at })
	client := c.Client(t)
	ids := make([]shard.NodeID, 4)
	for i, n := range c.Nodes() {
		ids[i] = id(n)
	}
	count := 0
	for _, who := range []string{"controller", "source", "target"} {
		for _, step := range node.MoveSteps() {
			t.Run(who+" before "+step, func(t *testing.T) {
				d := theShard(c.Node(1))
				to := ids[slices.IndexFunc(ids, func(n shard.NodeID) bool { _, has := d.ReplicaOn(n); return !has })]
				from := id(leaderOf(t, c, nodeOf(t, c, d.Replicas[0].Node), ""))
				if d.PreferredNode != from {
					from = d.PreferredNode // so that no step is left out
				}
				if from == 0 {
					from = d.Replicas[0].Node
				}
				stop.before(step)
				beginMove(t, c.Node(1), d.ID, from, to)
				controller := stop.await(t, c)
				down := map[string]*testcluster.Node{"controller": controller, "source": nodeOf(t, c, from), "target": nodeOf(t, c, to)}[who]
				down.Stop()
				close(stop.resume)
				up := others(c, down)[0]
				put(t, c.Client(t, up), "k", fmt.Sprint(count))
				down.Start(t)
				requireMoved(t, up, d.ID, from, to)
				requireHolds(t, nodeOf(t, c, from), d.ID)
				requireHolds(t, nodeOf(t, c, to), d.ID, d.NextReplicaID)
				requireSameMembers(t, c, d.ID)
				requireValue(t, client, "k", fmt.Sprint(count))
				count++
			})
		}
	}
}

// A move to a node that does not come back is cancelled while nothing has a vote yet;
// after that it cannot be, whoever asks.
func TestMoveIsCancelled(t *testing.T) {
	t.Parallel()
	stop := newInterruption()
	c := moveCluster(t, func(_ string, cfg *node.Config) { cfg.Knobs.Operator = stop.at })
	first, fourth := c.Node(1), c.Node(4)
	d, target := theShard(first), id(fourth)
	from := d.Replicas[2].Node
	begin := func(from, to shard.NodeID) uint64 {
		operator, err := first.Inside().Move(t.Context(), d.ID, from, to, "a test")
		require.NoError(t, err)
		return operator
	}
	stop.before(node.MoveSteps()[2])
	operator := begin(from, target)
	stop.await(t, c)
	fourth.Stop()
	close(stop.resume)
	require.NoError(t, first.Inside().CancelOperator(t.Context(), d.ID, operator))
	put(t, c.Client(t, first), "k", "v")
	// What is left of it goes by another move.
	begin(target, 0)
	requireMoved(t, first, d.ID, target, 0)
	require.Len(t, theShard(first).Replicas, 3)
	fourth.Start(t)
	requireHolds(t, fourth, d.ID)

	stop.before(node.MoveSteps()[4]) // it is started, and there is no vote yet
	operator = begin(from, target)
	stop.await(t, c)
	require.ErrorContains(t, first.Inside().CancelOperator(t.Context(), d.ID, operator), "can only be brought to its end")
	close(stop.resume)
	requireMoved(t, first, d.ID, from, target)
	requireValue(t, c.Client(t, fourth), "k", "v")
}

// O2: a replica gets its vote when it has applied what was acknowledged before.
func TestLearnerVotesWhenItHasCaughtUp(t *testing.T) {
	t.Parallel()
	stop := newInterruption()
	c := moveCluster(t, func(_ string, cfg *node.Config) { cfg.Knobs.Operator = stop.at })
	first, fourth := c.Node(1), c.Node(4)
	d := theShard(first)
	stop.before(node.MoveSteps()[2])
	beginMove(t, first, d.ID, 0, id(fourth))
	stop.await(t, c)
	for _, n := range others(c, fourth) {
		c.Network().Delay(n.Name, fourth.Name, 300*time.Millisecond)
	}
	resumed := stop.resume
	rev := put(t, c.Client(t, first), "k", "v")
	stop.before(node.MoveSteps()[4])
	close(resumed)
	stop.await(t, c)
	r, ok := fourth.Inside().Host().Replica(d.ID)
	require.True(t, ok)
	require.GreaterOrEqual(t, int64(r.View().Rev), rev)
	c.Network().Heal()
	close(stop.resume)
	requireMoved(t, first, d.ID, 0, id(fourth))
	require.Len(t, theShard(first).Replicas, 4)
}

// O4: a replica does not leave while those that stay could not go on without it.
func TestReplicaStaysWhileItIsNeeded(t *testing.T) {
	t.Parallel()
	stop := newInterruption()
	c := testcluster.Start(t, testcluster.Options{Edit: func(_ string, cfg *node.Config) { cfg.Knobs.Operator = stop.at }})
	d := theShard(c.Node(1))
	leader := leaderOf(t, c, c.Node(1), "")
	followers := others(c, leader)
	if followers[1] == metaLeader(t, c) { // it must go on
		slices.Reverse(followers)
	}
	leaving, down := followers[0], followers[1]
	from := id(leaving)
	stop.before(node.MoveSteps()[7])
	beginMove(t, leader, d.ID, from, 0)
	controller := stop.await(t, c)
	down.Stop()
	close(stop.resume)
	testcluster.Until(t, "the move to wait", func() bool {
		return controller.Logged("of the 2 replicas that would stay 1 answer")
	})
	put(t, c.Client(t, leader), "k", "v") // the one that is to leave still counts
	down.Start(t)
	requireMoved(t, leader, d.ID, from, 0)
	requireSameMembers(t, c, d.ID)
	requireValue(t, c.Client(t, leaving), "k", "v")
}

// O4: a replica that leads has another one lead before the group dismisses it.
func TestALeaderYieldsBeforeItLeaves(t *testing.T) {
	t.Parallel()
	stop := newInterruption()
	c := moveCluster(t, func(_ string, cfg *node.Config) { cfg.Knobs.Operator = stop.at })
	first, fourth := c.Node(1), c.Node(4)
	d := theShard(first)
	leader := leaderOf(t, c, first, "")
	stop.before(node.MoveSteps()[8])
	beginMove(t, first, d.ID, id(leader), id(fourth))
	stop.await(t, c)
	r, ok := leader.Inside().Host().Replica(d.ID)
	require.True(t, ok)
	require.False(t, r.Leads())
	close(stop.resume)
	requireMoved(t, first, d.ID, id(leader), id(fourth))
}

// O1: a controller that was held up before a step goes on while another has finished the
// move, and has begun the next one. It changes nothing any more.
func TestTwoControllers(t *testing.T) {
	t.Parallel()
	stop := newInterruption()
	c := moveCluster(t, func(_ string, cfg *node.Config) { cfg.Knobs.Operator = stop.at })
	put(t, c.Client(t), "k", "v")
	for _, step := range node.MoveSteps() {
		t.Run(step, func(t *testing.T) {
			d := theShard(c.Node(1))
			from, to := d.PreferredNode, shard.NodeID(0)
			for _, n := range c.Nodes() {
				if _, has := d.ReplicaOn(id(n)); !has {
					to = id(n)
				}
			}
			stop.before(step)
			held := stop.resume
			beginMove(t, c.Node(1), d.ID, from, to)
			controller := stop.await(t, c)
			testcluster.Until(t, "another node to lead the meta group", func() bool {
				// A founder's meta replica has its node's ID. One that leads already stays.
				next := uint64(id(controller))%3 + 1
				_ = controller.Inside().Host().NodeHost().RequestLeaderTransfer(uint64(shard.MetaID), next)
				return metaLeader(t, c) != controller
			})
			requireMoved(t, c.Node(1), d.ID, from, to)
			beginMove(t, c.Node(1), d.ID, to, from)
			close(held)
			requireMoved(t, c.Node(1), d.ID, to, from)
			requireSameMembers(t, c, d.ID)
			requireHolds(t, nodeOf(t, c, to), d.ID)
			requireHolds(t, nodeOf(t, c, from), d.ID, d.NextReplicaID+1)
			requireValue(t, c.Client(t), "k", "v")
		})
	}
}

// A replica moves away from a node that is down. When the node comes back it has nothing of
// it any more.
func TestMoveFromANodeThatIsDown(t *testing.T) {
	t.Parallel()
	c := moveCluster(t, nil)
	d := theShard(c.Node(1))
	down, fourth := c.Node(3), c.Node(4)
	from, to := id(down), id(fourth)
	put(t, c.Client(t), "k", "v")
	down.Stop()
	beginMove(t, fourth, d.ID, from, to)
	requireMoved(t, fourth, d.ID, from, to)
	requireSameMembers(t, c, d.ID)
	down.Start(t)
	requireHolds(t, down, d.ID)
	requireValue(t, c.Client(t, down), "k", "v")

	// Here a new replica is to come before the old one is removed.
	fourth.Stop()
	first := c.Node(1)
	beginMove(t, first, d.ID, to, 0)
	requireMoved(t, first, d.ID, to, 0)
	put(t, c.Client(t, first), "k", "later")
	beginMove(t, first, d.ID, 0, to)
	testcluster.Until(t, "the table to have the learner", func() bool { return len(theShard(first).Replicas) == 3 })
	fourth.Start(t)
	requireMoved(t, first, d.ID, 0, to)
	requireHolds(t, fourth, d.ID, d.NextReplicaID+1)
	requireValue(t, c.Client(t, fourth), "k", "later")
}

// All nodes restart after replicas have moved: each finds the table of before in its log
// first, and none starts a replica that was taken from it.
func TestMovedReplicasDoNotComeBack(t *testing.T) {
	t.Parallel()
	c := moveCluster(t, nil)
	first, fourth := c.Node(1), c.Node(4)
	d := theShard(first)
	put(t, c.Client(t), "k", "v")
	for _, r := range d.Replicas[:2] { // a majority of the first members
		to := id(fourth)
		if r.ID == d.Replicas[1].ID {
			to = d.Replicas[0].Node
		}
		beginMove(t, first, d.ID, r.Node, to)
		requireMoved(t, first, d.ID, r.Node, to)
	}
	now := theShard(first)
	for range 2 {
		c.StopAll()
		c.StartAll(t)
		for _, n := range c.Nodes() {
			requireValue(t, c.Client(t, n), "k", "v")
			if r, has := now.ReplicaOn(id(n)); has {
				requireHolds(t, n, d.ID, r.ID)
			} else {
				requireHolds(t, n, d.ID)
			}
		}
	}
}

// O5: a founder that never came up takes part in a group whose members have changed since:
// it joins, and does not found a group of its own.
func TestFounderThatComesLate(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Nodes: 4, Splits: "uniform:4"})
	first, late := c.Node(1), c.Node(4) // the fourth has no part in the meta group
	m := first.Inside().Map()
	d := m.OnNode(id(late))[0]
	to := m.Nodes()[slices.IndexFunc(m.Nodes(), func(n *placement.Node) bool { _, has := d.ReplicaOn(n.ID); return !has })].ID
	from := d.Replicas[slices.IndexFunc(d.Replicas, func(r shard.Replica) bool { return r.Node != id(late) })].Node
	// As if it had said hello to the others, and nothing more.
	c.StopAll()
	dir := late.Config().DataDir
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "store")))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "raft")))
	replaceIn(t, identityOf(late), `"stored": true`, `"stored": false`)
	started := make(chan error, 3)
	for _, n := range others(c, late) {
		go func() { started <- n.Run(t.Context()) }()
	}
	for range 3 {
		require.NoError(t, <-started)
	}

	key := string(d.Span.Start) + "k"
	put(t, c.Client(t, first), key, "v")
	beginMove(t, first, d.ID, 0, to)
	requireMoved(t, first, d.ID, 0, to)
	late.Start(t)
	r, ok := late.Inside().Host().Replica(d.ID)
	require.True(t, ok)
	testcluster.Eventually(t, "the late founder to have what the others have", r.CatchUp)
	requireSameMembers(t, c, d.ID)
	beginMove(t, first, d.ID, from, 0)
	requireMoved(t, first, d.ID, from, 0)
	requireValue(t, c.Client(t, late), key, "v")
}
