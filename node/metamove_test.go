package node_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
)

// metaGroup is the meta group, as the node's table has it.
func metaGroup(n *testcluster.Node) *shard.Descriptor { return n.Inside().Map().Shard(shard.MetaID) }

// metaLeader is the node that leads it: there the controller works.
func metaLeader(t *testing.T, c *testcluster.Cluster) *testcluster.Node {
	t.Helper()
	var found *testcluster.Node
	testcluster.Eventually(t, "a leader of the meta group", func(context.Context) error {
		for _, n := range c.Nodes() {
			in := n.Inside()
			if in == nil {
				continue
			}
			leader, _ := in.Host().Leader(shard.MetaID)
			if r, has := metaGroup(n).ReplicaOn(in.ID()); has && r.ID == leader {
				found = n
				return nil
			}
		}
		return errors.New("no node says that it leads")
	})
	return found
}

// requireMetaOn waits until the meta group votes on three nodes, none of which is among
// those, and nothing goes on.
func requireMetaOn(t *testing.T, at *testcluster.Node, not ...shard.NodeID) {
	t.Helper()
	testcluster.Eventually(t, "the meta group where it belongs", func(context.Context) error {
		m, d := at.Inside().Map(), metaGroup(at)
		off := slices.ContainsFunc(d.Replicas, func(r shard.Replica) bool { return r.Learner || slices.Contains(not, r.Node) })
		if off || len(d.Replicas) != 3 || m.Operator(shard.MetaID) != nil {
			return fmt.Errorf("it is on %v", d.Replicas)
		}
		return nil
	})
}

// remove takes an emptied node out of the cluster. It stops by itself, and does not come
// back with what it had.
func remove(t *testing.T, c *testcluster.Cluster, at, gone *testcluster.Node) {
	t.Helper()
	lost, done := id(gone), gone.Inside().Done()
	testcluster.Eventually(t, gone.Name+" to be empty and removed", func(ctx context.Context) error {
		_, err := at.Inside().Propose(ctx, placement.Remove(lost))
		return err
	})
	<-done
	require.ErrorContains(t, gone.Inside().Err(), "was removed from cluster")
	gone.Stop()
	requireRefused(t, gone, "was removed from cluster", "empty data directory")
}

// Every founder is replaced, one after the other, while clients write. Then the founders
// are switched off for good, the others restart, and find each other without them.
func TestAClusterOutlivesItsFounders(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Balance: true, Splits: "m", Tick: steadyTick})
	for range 4 {
		c.Add().Start(t)
	}
	briskly(t, c.Node(1), nil)
	founders, later := c.Nodes()[:3], c.Nodes()[3:]
	load := startLoad(t, c)
	var gone []shard.NodeID
	for _, n := range founders {
		gone = append(gone, id(n))
		setStateAt(t, c, later[0], n, placement.Decommissioning)
	}
	requireMetaOn(t, later[0], gone...)
	load.stop(t)
	for _, n := range founders {
		remove(t, c, later[0], n)
	}
	last := later[3] // follows from others, unless the group is on it
	last.Restart(t)
	for _, n := range later {
		n.Stop()
	}
	c.StartSome(t, later...)
	for _, n := range later {
		client := c.Client(t, n)
		load.requireAll(t, client)
		put(t, client, n.Name, "v")
	}
	briskly(t, last, map[string]string{"split-writes": "1000"}) // the table can still be changed
}

// A founder that is dead for good is replaced in the meta group as well, also when it led
// it. When it comes back it has no part in it.
func TestADeadFounderIsReplaced(t *testing.T) {
	t.Parallel()
	c := moveCluster(t, func(_ string, cfg *node.Config) { cfg.ManualPlacement = false })
	briskly(t, c.Node(1), nil)
	dead := metaLeader(t, c)
	lost := id(dead)
	dead.Stop()
	at := others(c, dead)[0]
	requireMetaOn(t, at, lost)
	dead.Start(t)
	requireHolds(t, dead, shard.MetaID)
	put(t, c.Client(t, dead), "k", "v")
	briskly(t, dead, map[string]string{"split-writes": "1000"})
}

// Whoever stops, before whichever step: the meta group's move comes to its end.
func TestTheMetaGroupMovesAfterStops(t *testing.T) {
	t.Parallel()
	stop := newInterruption()
	c := moveCluster(t, func(_ string, cfg *node.Config) { cfg.Knobs.Operator = stop.at })
	var ids []shard.NodeID
	for _, n := range c.Nodes() {
		ids = append(ids, id(n))
	}
	for _, who := range []string{"leader", "target"} {
		for _, step := range node.MoveSteps() {
			if step == "the table prefers another node" { // of the meta group none is preferred
				continue
			}
			t.Run(who+" before "+step, func(t *testing.T) {
				leader := metaLeader(t, c)
				d := metaGroup(leader)
				from := id(leader)
				to := ids[slices.IndexFunc(ids, func(n shard.NodeID) bool { _, has := d.ReplicaOn(n); return !has })]
				down := map[string]*testcluster.Node{"leader": leader, "target": nodeOf(t, c, to)}[who]
				stop.before(step)
				beginMove(t, leader, shard.MetaID, from, to)
				stop.await(t, c)
				down.Stop()
				close(stop.resume)
				down.Start(t)
				up := others(c, down)[0]
				requireMoved(t, up, shard.MetaID, from, to)
				requireHolds(t, nodeOf(t, c, from), shard.MetaID)
				requireHolds(t, nodeOf(t, c, to), shard.MetaID, d.NextReplicaID)
			})
		}
	}
	put(t, c.Client(t), "k", "v")
}
