package apply_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// A shard that gets keys back which it gave away does not know them as they were then, although
// it remembers more headers than its cache has room for.
func TestHeadersOfKeysThatComeBack(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	stamp := shard.Tick(100)
	putAll := func() {
		for i := range 10 {
			stamp++
			f.putAt(fmt.Sprint("n", i), stamp)
		}
	}
	putAll()
	split := splitCommand(f.machine.View().Descriptor, testChild, 8, "m")
	require.NoError(t, f.apply(split)[0].Err)
	f.turn(testChild)
	require.NoError(t, f.apply(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: split.Child})[0].Err)
	f.machine = f.openMachine(testChild) // it begins without what it has inherited
	putAll()
	require.NoError(t, f.machine.Store())
	f.turn(testShard)

	plan := f.freezeRight(shard.DescriptorOf(split.Child), stamp)
	require.NoError(t, f.apply(plan.subsume(testOperator))[0].Err)
	putAll()
	resp, err := f.machine.Range(&pb.RangeRequest{Key: []byte("n"), RangeEnd: []byte("o")}, 0)
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 10)
	for _, kv := range resp.Kvs {
		require.EqualValues(t, 3, kv.Version, "%s", kv.Key)
	}
}

// A shard that began on this node does not look for new keys in the store; one that was there before the node started
// does.
func TestNewKeysOfAYoungShard(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	stamp, n := shard.Tick(100), 0
	looked := func() (times int64) {
		require.NoError(t, f.machine.Store())
		require.NoError(t, f.engine.Sync())
		before := f.engine.Metrics().Filter
		for range 20 {
			stamp, n = stamp+1, n+1
			f.putAt(fmt.Sprint("key ", n), stamp)
		}
		now := f.engine.Metrics().Filter
		return now.Hits + now.Misses - before.Hits - before.Misses
	}
	require.Zero(t, looked())
	require.Zero(t, looked())
	f.restart()
	require.Positive(t, looked())
}
