package exec

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

func TestSubscribe(t *testing.T) {
	n := newNode(t)
	first := n.put("k")
	sub := router.Subscription{Shard: testShard, Epoch: testEpoch, Span: shard.PointSpan([]byte("k")), From: first, PrevKV: true}
	ready := make(chan struct{}, 100)
	feed, err := n.Subscribe(sub, func() { ready <- struct{}{} })
	require.NoError(t, err)
	defer feed.Close()
	n.put("l")
	second := n.put("k")
	n.write(command(shardpb.Kind_DELETE_RANGE, &pb.DeleteRangeRequest{Key: []byte("k")}), false)
	var got shard.Changes
	for len(got.Events) < 3 {
		select {
		case <-ready:
		case <-time.After(patience):
			t.Fatal("nothing to poll")
		}
		more, err := feed.Poll(10)
		require.NoError(t, err)
		got.Events, got.Through = append(got.Events, more.Events...), more.Through
	}
	require.Equal(t, n.replica.View().Floor, got.Through)
	require.Nil(t, got.Events[0].PrevKv)
	require.Equal(t, int64(first), got.Events[1].PrevKv.ModRevision)
	require.Equal(t, int64(second), got.Events[2].PrevKv.ModRevision)
}

// Whoever subscribes elsewhere or by another map is told so, with the map's correction.
func TestSubscribeIsRefused(t *testing.T) {
	n := newNode(t)
	for name, change := range map[string]func(*router.Subscription){
		"another epoch":    func(s *router.Subscription) { s.Epoch++ },
		"more than it has": func(s *router.Subscription) { s.Span = shard.Everything() },
	} {
		sub := router.Subscription{Shard: testShard, Epoch: testEpoch, Span: shard.PointSpan([]byte("k")), From: 1}
		change(&sub)
		feed, err := n.Subscribe(sub, func() {})
		var wrong *shard.WrongShardError
		require.ErrorAs(t, err, &wrong, name)
		require.Equal(t, uint64(3), wrong.Descriptors[0].Generation)
		require.Nil(t, feed)
	}
	_, err := n.Subscribe(router.Subscription{Shard: 99, Epoch: testEpoch, From: 1}, func() {})
	var noReplica *shard.NoReplicaError
	require.ErrorAs(t, err, &noReplica)
}
