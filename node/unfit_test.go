package node_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// poison makes a replica of a node one that was told to begin without its data, and
// returns when the node runs again.
func poison(t *testing.T, n *testcluster.Node, d *shard.Descriptor) {
	t.Helper()
	own, ok := d.ReplicaOn(id(n))
	require.True(t, ok)
	n.Stop()
	withStore(t, n, func(e *engine.Engine) {
		raw, err := e.Local(d.ID, own.ID, apply.StateKind)
		require.NoError(t, err)
		view, err := apply.UnmarshalState(raw)
		require.NoError(t, err)
		raw, err = apply.MarshalState(shard.View{Applied: view.Applied, Poisoned: true})
		require.NoError(t, err)
		require.NoError(t, e.Replace(d.Span, nil))
		b := e.NewBatch()
		require.NoError(t, b.Set(engine.LocalKey(d.ID, own.ID, apply.StateKind), raw, nil))
		require.NoError(t, e.Commit(b))
		require.NoError(t, b.Close())
	})
	n.Start(t)
	r, ok := n.Inside().Host().Replica(d.ID)
	require.True(t, ok)
	require.True(t, r.View().Poisoned)
}

// withStore does something with the store of a node that is stopped.
func withStore(t *testing.T, n *testcluster.Node, do func(*engine.Engine)) {
	t.Helper()
	e, err := engine.Open(filepath.Join(n.Config().DataDir, "store"), engine.Options{})
	require.NoError(t, err)
	do(e)
	require.NoError(t, e.Sync())
	require.NoError(t, e.Close())
}

// A node whose replica of a shard is poisoned serves the shard's keys all the same, from
// other nodes: it reads, sums up and watches there, and never leads.
func TestPoisonedReplicaIsPassedOver(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "m"})
	put(t, c.Client(t), "a", "1")
	put(t, c.Client(t), "z", "1")
	ill := c.Node(3)
	poison(t, ill, ill.Inside().Map().Lookup([]byte("a")))

	want := hashKV(t, c, c.Node(1), 0)
	require.Equal(t, want.Hash, hashKV(t, c, ill, want.HashRevision).Hash)
	client := c.Client(t, ill)
	requireValue(t, client, "a", "1")
	resp, err := client.Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithSerializable())
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 2)
	watch := client.Watch(t.Context(), "a", clientv3.WithRev(1))
	rev := put(t, client, "a", "2")
	testcluster.Eventually(t, "the watch to tell of the put", func(ctx context.Context) error {
		select {
		case got := <-watch:
			if len(got.Events) > 0 && got.Events[len(got.Events)-1].Kv.ModRevision == rev {
				return nil
			}
			return fmt.Errorf("it told of %v, error %v", got.Events, got.Err())
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// A poisoned replica does not lead, not even for the node that should, and that does not
// keep changing who leads.
func TestPoisonedReplicaDoesNotLead(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	client := c.Client(t, c.Node(1), c.Node(2))
	put(t, client, "k", "v")
	ill := c.Node(3)
	_, err := c.Node(1).Inside().Propose(t.Context(), placement.Prefer(theShard(ill), id(ill)))
	require.NoError(t, err)
	poison(t, ill, theShard(ill))
	leads := func() *testcluster.Node {
		for _, n := range c.Nodes() {
			if r, ok := n.Inside().Host().Replica(theShard(n).ID); ok && r.Leads() {
				return n
			}
		}
		return nil
	}
	r, _ := ill.Inside().Host().Replica(theShard(ill).ID)
	testcluster.Until(t, "a fit replica to lead", func() bool { n := leads(); return n != nil && n != ill })
	// As when an election makes it lead.
	testcluster.Until(t, "the poisoned one to lead once more", func() bool {
		if n := leads(); n != nil {
			_ = n.Inside().Host().NodeHost().RequestLeaderTransfer(uint64(r.ID()), uint64(r.ReplicaID())) // refused while one is under way
		}
		return r.Leads()
	})
	testcluster.Until(t, "a fit replica to lead", func() bool { n := leads(); return n != nil && n != ill })
	put(t, client, "k", "w")
}

// A poisoned replica is replaced: where there is no other node, by one on the same.
func TestPoisonedReplicaIsReplaced(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{3, 4} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			t.Parallel()
			c := testcluster.Start(t, testcluster.Options{Balance: true})
			for range nodes - 3 {
				c.Add().Start(t)
			}
			client := c.Client(t)
			put(t, client, "k", "v")
			d := theShard(c.Node(1))
			ill := nodeOf(t, c, d.Replicas[1].Node)
			poison(t, ill, d)
			requireShown(t, c, d.ID, ill, "poisoned")
			briskly(t, c.Node(1), nil)
			testcluster.Eventually(t, "the replica to be replaced", func(context.Context) error {
				now := c.Node(1).Inside().Map()
				d := now.Shard(d.ID)
				if len(now.Operators()) > 0 || len(d.Replicas) != 3 || d.NodeOf(2) != 0 {
					return fmt.Errorf("replicas %v, operators %v", d.Replicas, now.Operators())
				}
				return nil
			})
			put(t, client, "l", "v")
			requireSame(t, c)
			requireShown(t, c, d.ID, nil, "")
		})
	}
}

// requireShown waits until the Admin service tells of one replica that is unfit, and why;
// of none for a nil node.
func requireShown(t *testing.T, c *testcluster.Cluster, id shard.ID, ill *testcluster.Node, why string) {
	t.Helper()
	testcluster.Eventually(t, "the replica to be shown as it is", func(ctx context.Context) error {
		reply, err := admin(t, c, c.Node(1)).Shards(ctx, &adminpb.ShardsRequest{Id: uint64(id)})
		if err != nil {
			return err
		}
		for _, r := range reply.Shards[0].Replicas {
			if is := ill != nil && r.Node == ill.Name; is != (r.Unfit != "") || is && !strings.Contains(r.Unfit, why) {
				return fmt.Errorf("of the replica on %s it tells %q", r.Node, r.Unfit)
			}
		}
		return nil
	})
}
