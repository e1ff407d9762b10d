package apply_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
	"github.com/flotilla-kv/flotilla/shard/watch"
)

// halves is a node with a shard [, m) and its right neighbour [m, ), both at epoch 2. The
// left one is at hand.
func halves(t *testing.T) (f *fixture, right *shard.Descriptor) {
	f = newFixture(t)
	f.apply(initCommand(shard.Everything()))
	split := splitCommand(f.machine.View().Descriptor, testChild, 8, "m")
	require.NoError(t, f.apply(split)[0].Err)
	f.turn(testChild)
	require.NoError(t, f.apply(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: split.Child})[0].Err)
	f.turn(testShard)
	return f, shard.DescriptorOf(split.Child)
}

// putAt puts a key in the shard at hand, at the stamp.
func (f *fixture) putAt(key string, stamp shard.Tick) {
	f.t.Helper()
	cmd := command(f.t, shardpb.Kind_PUT, stamp, &pb.PutRequest{Key: []byte(key)})
	cmd.Epoch = f.machine.View().Descriptor.Epoch
	require.NoError(f.t, f.apply(cmd)[0].Err)
}

func (f *fixture) compactAt(rev shard.Revision) {
	f.t.Helper()
	epoch := f.machine.View().Descriptor.Epoch
	require.NoError(f.t, f.apply(&shardpb.Command{Kind: shardpb.Kind_COMPACT, Epoch: epoch, Revision: int64(rev)})[0].Err)
}

// freezeRight freezes the right neighbour at the stamp; the left shard is at hand then.
func (f *fixture) freezeRight(right *shard.Descriptor, stamp shard.Tick) merging {
	f.t.Helper()
	plan := merge(f.machine.View().Descriptor, right)
	f.turn(right.ID)
	freeze := plan.freeze(testOperator)
	freeze.Stamp = int64(stamp)
	require.NoError(f.t, f.apply(freeze)[0].Err)
	f.turn(testShard)
	return plan
}

// What one half had collected says nothing of the other: after a merge all garbage goes.
func TestMergedGarbageIsCollected(t *testing.T) {
	f, right := halves(t)
	for i := range 20 {
		f.putAt("c", shard.Tick(100+i))
	}
	f.turn(right.ID)
	for i := range 20 {
		f.putAt("p", shard.Tick(100+i))
	}
	f.compactAt(shard.Tick(200).Revision())
	f.turn(testShard)
	f.compactAt(shard.Tick(200).Revision())
	require.True(t, f.collect(0).Done)
	require.NotZero(t, f.left())

	plan := f.freezeRight(right, 0)
	require.NoError(t, f.apply(plan.subsume(testOperator))[0].Err)
	require.Less(t, f.machine.Collected(), f.machine.View().Compacted)
	for f.collect(3).Ran {
	}
	require.Zero(t, f.left())
	require.Equal(t, f.machine.View().Compacted, f.machine.Collected())
}

// A feed of the right neighbour ends when that is frozen, having told how far it has come.
// Whoever goes on from there at the merged shard is given what comes, once. Feeds of the
// left shard go on; they need no history, which may be compacted on the other side.
func TestFeedsAcrossAMerge(t *testing.T) {
	f, right := halves(t)
	f.putAt("c", 10)
	everything := watch.Options{Span: f.machine.View().Descriptor.Span, From: 1}
	live := f.follow(everything)
	require.NoError(t, live.poll())

	f.turn(right.ID)
	f.putAt("p", 20)
	f.compactAt(f.machine.View().Rev) // above all that the left shard knows
	f.putAt("q", 30)
	moved := f.follow(watch.Options{Span: right.Span, From: f.machine.View().Compacted})
	require.NoError(t, moved.poll())
	f.turn(testShard)
	plan := f.freezeRight(right, 50)
	var gone *shard.NoReplicaError
	require.ErrorAs(t, moved.poll(), &gone)
	require.Equal(t, shard.Tick(50).Revision(), moved.through)

	put := command(t, shardpb.Kind_PUT, 40, &pb.PutRequest{Key: []byte("d")})
	put.Epoch = 2
	after := command(t, shardpb.Kind_PUT, 0, &pb.PutRequest{Key: []byte("r")})
	after.Epoch = plan.into.Epoch
	for _, r := range f.apply(put, plan.subsume(testOperator), after) { // all in one entry
		require.NoError(t, r.Err)
	}
	f.putAt("c", 60)
	require.NoError(t, live.poll())
	require.Equal(t, []string{"c", "d", "c"}, keysOf(live.got))
	require.Equal(t, f.machine.View().Floor, live.through)

	next := f.follow(watch.Options{Span: right.Span, From: moved.through + 1})
	require.NoError(t, next.poll())
	f.putAt("s", 0)
	require.NoError(t, next.poll())
	require.Equal(t, []string{"p", "q"}, keysOf(moved.got))
	require.Equal(t, []string{"r", "s"}, keysOf(next.got))

	// From the beginning that there still is, over both.
	both := f.follow(watch.Options{Span: shard.Everything(), From: f.machine.View().Compacted})
	require.NoError(t, both.poll())
	require.Equal(t, []string{"p", "q", "d", "r", "c", "s"}, keysOf(both.got))
}

// A key that was split off and comes back with a merge goes on from what its other shard has
// made of it, not from what was in memory of it before.
func TestWhatComesBackIsReadAnew(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	f.putAt("p", 10)
	f.putAt("p", 20)
	split := splitCommand(f.machine.View().Descriptor, testChild, 8, "m")
	require.NoError(t, f.apply(split)[0].Err)
	f.turn(testChild)
	require.NoError(t, f.apply(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: split.Child})[0].Err)
	f.putAt("p", 30)
	f.turn(testShard)
	plan := f.freezeRight(shard.DescriptorOf(split.Child), 40)
	require.NoError(t, f.apply(plan.subsume(testOperator))[0].Err)
	f.putAt("p", 50)
	resp, err := f.machine.Range(&pb.RangeRequest{Key: []byte("p")}, 0)
	require.NoError(t, err)
	require.EqualValues(t, 4, resp.Kvs[0].Version)
}

// follow is watch at the epoch that the shard at hand has.
func (f *fixture) follow(o watch.Options) *watcher {
	w := &watcher{onReady: func() {}}
	o.Epoch, o.Ready = f.machine.View().Descriptor.Epoch, func() { w.called++ }
	var err error
	w.Subscription, err = f.machine.Subscribe(o)
	require.NoError(f.t, err)
	return w
}

func keysOf(events []*mvccpb.Event) (keys []string) {
	for _, e := range events {
		keys = append(keys, string(e.Kv.Key))
	}
	return keys
}
