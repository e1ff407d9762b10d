package node_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// Leases with homes and keys on both sides of a split are renewed and looked at as
// before, can be attached to, and take all their keys along when they are revoked.
func TestSplitKeepsLeases(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	client := c.Client(t)
	var ids []clientv3.LeaseID
	keys := make(map[clientv3.LeaseID][]string)
	for i := range 8 {
		id := grantLease(t, client, 60)
		ids = append(ids, id)
		keys[id] = attach(t, client, id, fmt.Sprint("before", i))
	}
	splitAt(t, c.Node(1), spread(4, ""))
	splitAt(t, c.Node(2), spread(2, ""))
	for i, id := range ids {
		_, err := client.KeepAliveOnce(t.Context(), id)
		require.NoError(t, err)
		require.ElementsMatch(t, keys[id], attached(t, client, id))
		keys[id] = append(keys[id], attach(t, client, id, fmt.Sprint("after", i))...)
		require.ElementsMatch(t, keys[id], attached(t, client, id))
	}
	for i, id := range ids {
		_, err := client.Revoke(t.Context(), id)
		require.NoError(t, err)
		untilGone(t, client, keys[id])
		if i+1 < len(ids) {
			requirePresent(t, client, keys[ids[i+1]])
		}
	}
}

// A replica that joins a shard that was split off gets its data, and no INIT that would
// ask it for a seed. So does one of the parent, beside the child's on the same node.
func TestMoveAfterSplit(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	fourth := c.Add()
	fourth.Start(t)
	client := c.Client(t)
	w := startWriters(t, 3, client)
	key := spread(4, "")
	splitAt(t, c.Node(1), key)
	for _, k := range []string{key, "a"} {
		d := c.Node(1).Inside().Map().Lookup([]byte(k))
		from := d.Replicas[0].Node
		beginMove(t, c.Node(1), d.ID, from, id(fourth))
		requireMoved(t, c.Node(1), d.ID, from, id(fourth))
	}
	splitAt(t, fourth, spread(2, ""))
	w.requireKept(t, client)
	requireSame(t, c)
}
