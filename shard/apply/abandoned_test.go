package apply_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// dataIn counts what the store has in the span: versions, leases and attached keys.
func (f *fixture) dataIn(span shard.Span) (n int) {
	f.t.Helper()
	first, last := engine.LeaseSpanBounds(span)
	it, err := f.reader().NewIter(nil)
	require.NoError(f.t, err)
	for it.First(); it.Valid(); it.Next() {
		key, _, ok := engine.DecodeDataKey(it.Key())
		if !ok {
			_, key, ok = engine.DecodeAttachedKey(it.Key())
		}
		lease := string(it.Key()) >= string(first) && string(it.Key()) < string(last)
		if lease || ok && span.Contains(key) {
			n++
		}
	}
	require.NoError(f.t, it.Close())
	return n
}

// leased puts a key with lease 1, whose home key is between "V" and "W".
func (f *fixture) leased(key string) *shardpb.Command {
	cmd := command(f.t, shardpb.Kind_PUT, 0, &pb.PutRequest{Key: []byte(key), Lease: 1})
	cmd.Epoch = f.machine.View().Descriptor.Epoch
	return cmd
}

func (f *fixture) grant() {
	cmd := command(f.t, shardpb.Kind_LEASE_GRANT, 10, &shardpb.LeaseCommand{Lease: 1, Ttl: 60})
	cmd.Epoch = f.machine.View().Descriptor.Epoch
	require.NoError(f.t, f.apply(cmd)[0].Err)
}

// A parent that comes to its split without an heir on its node, because the child's replica there was replaced or there
// never was one, keeps nothing of what it gives away: nobody would remove it later. What came in the same entry as the
// split goes too.
func TestASplitWithoutAnHeirLeavesNoData(t *testing.T) {
	kept, given := shard.Span{End: []byte("B")}, shard.Span{Start: []byte("B")}
	for name, c := range map[string]struct {
		node       shard.NodeID
		gone, heir bool
	}{
		"the heir is gone": {node: 1, gone: true},
		"it was never one": {node: 3},
		"there is an heir": {node: 1, heir: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newNode(t, c.node, vfs.NewMem())
			f.gone = func(shard.ID, shard.ReplicaID) (bool, error) { return c.gone, nil }
			f.restart()
			f.apply(initCommand(shard.Everything()))
			f.grant()
			for _, r := range f.apply(f.leased("A"), f.leased("c")) {
				require.NoError(t, r.Err)
			}
			has := f.dataIn(kept)
			require.Equal(t, 2, has, "a version, attached")
			require.Equal(t, 3, f.dataIn(given), "a version, attached, and the lease")

			for _, r := range f.apply(f.leased("d"), splitCommand(f.machine.View().Descriptor, testChild, 8, "B")) {
				require.NoError(t, r.Err)
			}
			for range 2 {
				require.Equal(t, has, f.dataIn(kept))
				require.Equal(t, c.heir, f.dataIn(given) > 0)
				resp, err := f.machine.Range(&pb.RangeRequest{Key: []byte("A")}, 0)
				require.NoError(t, err)
				require.Len(t, resp.Kvs, 1)
				f.restart()
			}
		})
	}
}

// A replica that is poisoned by a merge keeps nothing of what it had, and its neighbour everything.
func TestAReplicaPoisonedByAMergeHasNoData(t *testing.T) {
	f, right := halves(t)
	f.grant()
	require.NoError(t, f.apply(f.leased("c"))[0].Err)
	f.turn(right.ID)
	f.putAt("p", 20)
	f.turn(testShard)
	mine := f.machine.View().Descriptor.Span
	f.apply(f.leased("d"), merge(f.machine.View().Descriptor, right).subsume(testOperator))
	require.True(t, f.machine.View().Poisoned, "its neighbour is not frozen")
	for range 2 {
		require.Zero(t, f.dataIn(mine))
		require.Equal(t, 1, f.dataIn(right.Span))
		f.restart()
	}
}

// The same for one that is sent a snapshot of keys that are still another's.
func TestAReplicaPoisonedByASnapshotHasNoData(t *testing.T) {
	other, right := halves(t)
	plan := other.freezeRight(right, 50)
	require.NoError(t, other.apply(plan.subsume(testOperator))[0].Err)
	other.putAt("q", 60)

	f, _ := halves(t)
	f.grant()
	require.NoError(t, f.apply(f.leased("c"))[0].Err)
	f.turn(right.ID)
	f.putAt("p", 20)
	f.turn(testShard)
	mine := f.machine.View().Descriptor.Span
	require.NoError(t, f.receive(other.stream()))
	require.True(t, f.machine.View().Poisoned)
	for range 2 {
		require.Zero(t, f.dataIn(mine))
		require.Equal(t, 1, f.dataIn(right.Span))
		f.restart()
	}
}

// After a crash either the parent has everything, and its log brings it to the split again, or the keys and their data
// are gone. What the child's next replica was sent meanwhile, by a snapshot, stays: it is stored after what goes.
func TestWhatIsAbandonedOutlivesNoCrashInPart(t *testing.T) {
	given := shard.Span{Start: []byte("B")}
	other := newNode(t, 2, vfs.NewMem())
	f := newNode(t, 3, vfs.NewCrashableMem()) // no member of the child
	f.log = make(map[shard.ID][]apply.Entry)
	for _, n := range []*fixture{other, f} {
		n.apply(initCommand(shard.Everything()))
		n.grant()
		for _, key := range []string{"A", "c"} {
			require.NoError(t, n.apply(n.leased(key))[0].Err)
		}
	}
	split := splitCommand(other.machine.View().Descriptor, testChild, 8, "B")
	require.NoError(t, other.apply(split)[0].Err)
	other.turn(testChild)
	require.NoError(t, other.apply(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: split.Child})[0].Err)
	has := other.dataIn(given)

	f.store()
	require.NoError(t, f.engine.Sync())
	require.NoError(t, f.apply(split)[0].Err)
	require.Zero(t, f.dataIn(given))
	for range 2 { // the second time the log brings it
		f.crash()
		require.True(t, f.machine.View().Descriptor.Span.Equal(shard.Everything()), "the split was not durable")
		require.Equal(t, has, f.dataIn(given))
		require.NoError(t, f.machine.Update(f.log[testShard][f.index:], nil))
		require.Zero(t, f.dataIn(given))
	}
	f.turn(testChild)
	require.NoError(t, f.receive(other.stream()))
	f.crash()
	require.Equal(t, has, f.dataIn(given))
	require.Equal(t, testChild, f.id)
	require.True(t, f.machine.View().Descriptor.Span.Equal(given))
	f.turn(testShard)
	require.Equal(t, uint64(len(f.log[testShard])), f.index, "what came before the snapshot is durable")
}

// By A10 nobody else on the node has keys that a replica gives up. What somebody has all the same stays.
func TestWhatAnotherHasIsNotRemoved(t *testing.T) {
	f := newNode(t, 3, vfs.NewMem())
	f.apply(initCommand(shard.Everything()))
	f.putAt("c", 10)
	f.putAt("y", 10)
	other := &shard.Descriptor{ID: testChild + 7, Span: shard.Span{Start: []byte("x")}, Epoch: 1, Generation: 1}
	f.claim(other)

	split := splitCommand(f.machine.View().Descriptor, testChild, 8, "B")
	require.NoError(t, f.apply(split)[0].Err)
	require.Equal(t, 1, f.dataIn(shard.DescriptorOf(split.Child).Span))
	require.Equal(t, 1, f.dataIn(other.Span))
}

// claim gives keys to another replica of the node, as its state would.
func (f *fixture) claim(d *shard.Descriptor) {
	state, err := apply.MarshalState(shard.View{Descriptor: d})
	require.NoError(f.t, err)
	b := f.engine.NewBatch()
	require.NoError(f.t, b.Set(engine.LocalKey(d.ID, 1, apply.StateKind), state, nil))
	f.engine.Owners.Lock()
	require.NoError(f.t, f.engine.Commit(b))
	f.engine.Owners.Unlock()
	require.NoError(f.t, b.Close())
}

// Two replicas with the same keys, one of them frozen for the other, are removed at the same time: each leaves the keys to
// the other when its data is discarded, and what the second one to be forgotten has goes with its records.
func TestTwoThatGoTogetherLeaveNoData(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	for _, key := range []string{"a", "p"} {
		f.putAt(key, 10)
	}
	f.store()
	f.claim(&shard.Descriptor{ID: testChild, Epoch: 2, Span: shard.Span{Start: []byte("m")}})
	for _, id := range []shard.ID{testChild, testShard} {
		require.NoError(t, apply.Discard(f.engine, id, 1))
	}
	require.Equal(t, 1, f.dataIn(shard.Everything()))
	for _, id := range []shard.ID{testShard, testChild} {
		require.NoError(t, apply.Forget(f.engine, id, 1))
	}
	require.Zero(t, f.dataIn(shard.Everything()))
}
