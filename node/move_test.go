package node_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
)

// shardOf is the shard of a key, as the node's table has it.
func shardOf(n *testcluster.Node, key string) *shard.Descriptor {
	return n.Inside().Map().Lookup([]byte(key))
}

// idOf is the node's ID.
func idOf(n *testcluster.Node) shard.NodeID { return n.Inside().ID() }

// move begins a move and waits until it has ended.
func move(t *testing.T, through *testcluster.Node, id shard.ID, from, to shard.NodeID) {
	t.Helper()
	_, err := through.Inside().Move(t.Context(), id, from, to, "a test")
	require.NoError(t, err)
	waitMoved(t, through, id, from, to)
}

func waitMoved(t *testing.T, through *testcluster.Node, id shard.ID, from, to shard.NodeID) {
	t.Helper()
	testcluster.Eventually(t, "the move to end", func(context.Context) error {
		m := through.Inside().Map()
		d := m.Shard(id)
		_, stays := d.ReplicaOn(from)
		r, has := d.ReplicaOn(to)
		if m.Operator(id) != nil || stays || to != 0 && (!has || r.Learner) {
			return fmt.Errorf("shard %d is on %v, operators %v", id, d.Replicas, m.Operators())
		}
		return nil
	})
}

func TestMove(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	fourth := c.Add()
	fourth.Start(t)
	client := c.Client(t)
	for i := range 4 {
		put(t, client, spread(2*i, "k"), "v")
	}
	d := shardOf(c.Node(1), spread(0, "k"))
	move(t, c.Node(1), d.ID, d.Replicas[1].Node, idOf(fourth))
	for i := range 4 {
		requireValue(t, client, spread(2*i, "k"), "v")
	}
}
