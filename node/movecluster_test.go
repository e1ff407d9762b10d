package node_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/shard"
)

// moveCluster is four nodes, of which the last one has no replica at first.
func moveCluster(t *testing.T, edit func(name string, cfg *node.Config)) *testcluster.Cluster {
	t.Helper()
	c := testcluster.Start(t, testcluster.Options{Edit: edit})
	c.Add().Start(t)
	return c
}

// theShard is the cluster's only shard, as the node's table has it.
func theShard(n *testcluster.Node) *shard.Descriptor { return n.Inside().Map().Lookup(nil) }

func id(n *testcluster.Node) shard.NodeID { return n.Inside().ID() }

// nodeOf is the place of the node with the ID.
func nodeOf(t *testing.T, c *testcluster.Cluster, id shard.NodeID) *testcluster.Node {
	t.Helper()
	for _, n := range c.Nodes() {
		if in := n.Inside(); in != nil && in.Map().Node(id).Name == n.Name {
			return n
		}
	}
	t.Fatalf("node %s does not run", id)
	return nil
}

// beginMove has a move begun, which takes until the meta group has a leader.
func beginMove(t *testing.T, through *testcluster.Node, id shard.ID, from, to shard.NodeID) {
	t.Helper()
	testcluster.Eventually(t, "a move to begin", func(ctx context.Context) error {
		_, err := through.Inside().Move(ctx, id, from, to, "a test")
		if err != nil && moved(through, id, from, to) == nil { // an earlier attempt, of unknown outcome
			return nil
		}
		return err
	})
}

// moved is nil when the move has ended, as the node's table says.
func moved(at *testcluster.Node, id shard.ID, from, to shard.NodeID) error {
	m := at.Inside().Map()
	d := m.Shard(id)
	_, stays := d.ReplicaOn(from)
	r, has := d.ReplicaOn(to)
	if m.Operator(id) != nil || stays || to != 0 && (!has || r.Learner) {
		return fmt.Errorf("shard %d is on %v, operators %v", id, d.Replicas, m.Operators())
	}
	return nil
}

// requireMoved waits until the move has ended.
func requireMoved(t *testing.T, at *testcluster.Node, id shard.ID, from, to shard.NodeID) {
	t.Helper()
	testcluster.Eventually(t, "the move to end", func(context.Context) error { return moved(at, id, from, to) })
}

// requireHolds waits until the node has exactly the replicas that the table gives it.
func requireHolds(t *testing.T, n *testcluster.Node, id shard.ID, want ...shard.ReplicaID) {
	t.Helper()
	testcluster.Eventually(t, n.Name+" to hold its replicas", func(context.Context) error {
		var got []shard.ReplicaID
		for _, r := range n.Inside().Host().Held() {
			if r.Shard == id {
				got = append(got, r.Replica)
			}
		}
		_, runs := n.Inside().Host().Replica(id)
		if id == shard.MetaID { // it is no such replica
			runs = len(want) > 0
		}
		if runs != (len(want) > 0) || !slices.Equal(got, want) {
			return fmt.Errorf("it holds %v of shard %d, and one runs: %v", got, id, runs)
		}
		return nil
	})
}

// requireSameMembers waits until the group has the members that the table says: a node may
// hear of the table's last change a little later than of the group's.
func requireSameMembers(t *testing.T, c *testcluster.Cluster, id shard.ID) {
	t.Helper()
	testcluster.Eventually(t, "the group's members to be the table's", func(ctx context.Context) error {
		m := c.Node(1).Inside().Map()
		voters, learners := map[uint64]string{}, map[uint64]string{}
		for _, r := range m.Shard(id).Replicas {
			if r.Learner {
				learners[uint64(r.ID)] = m.Node(r.Node).PeerAddr
			} else {
				voters[uint64(r.ID)] = m.Node(r.Node).PeerAddr
			}
		}
		holder := nodeOf(t, c, m.Shard(id).Replicas[0].Node).Inside().Host().NodeHost()
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		got, err := holder.SyncGetShardMembership(ctx, uint64(id))
		if err != nil {
			return err
		}
		if !maps.Equal(voters, got.Nodes) || !maps.Equal(learners, got.NonVotings) {
			return fmt.Errorf("table: %v and learners %v; group: %v and %v", voters, learners, got.Nodes, got.NonVotings)
		}
		return nil
	})
}
