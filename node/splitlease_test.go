package node_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// leased are leases with homes and keys all over the keyspace.
type leased struct {
	client *clientv3.Client
	ids    []clientv3.LeaseID
	keys   map[clientv3.LeaseID][]string
}

func grantEverywhere(t *testing.T, client *clientv3.Client) *leased {
	t.Helper()
	l := &leased{client: client, keys: make(map[clientv3.LeaseID][]string)}
	for i := range 8 {
		id := grantLease(t, client, 60)
		l.ids = append(l.ids, id)
		l.keys[id] = attach(t, client, id, fmt.Sprint("before", i))
	}
	return l
}

// requireKept renews them, looks at them and attaches more to them.
func (l *leased) requireKept(t *testing.T) {
	t.Helper()
	for i, id := range l.ids {
		_, err := l.client.KeepAliveOnce(t.Context(), id)
		require.NoError(t, err)
		require.ElementsMatch(t, l.keys[id], attached(t, l.client, id))
		l.keys[id] = append(l.keys[id], attach(t, l.client, id, fmt.Sprint("after", i))...)
		require.ElementsMatch(t, l.keys[id], attached(t, l.client, id))
	}
}

// requireRevoked revokes them one after the other: each takes all its keys along, and no
// others.
func (l *leased) requireRevoked(t *testing.T) {
	t.Helper()
	for i, id := range l.ids {
		_, err := l.client.Revoke(t.Context(), id)
		require.NoError(t, err)
		untilGone(t, l.client, l.keys[id])
		if i+1 < len(l.ids) {
			requirePresent(t, l.client, l.keys[l.ids[i+1]])
		}
	}
}

// Leases with homes and keys on both sides of a split are renewed and looked at as
// before, can be attached to, and take all their keys along when they are revoked.
func TestSplitKeepsLeases(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	l := grantEverywhere(t, c.Client(t))
	splitAt(t, c.Node(1), spread(4, ""))
	splitAt(t, c.Node(2), spread(2, ""))
	l.requireKept(t)
	l.requireRevoked(t)
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
