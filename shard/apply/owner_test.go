package apply_test

import (
	"bytes"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

func TestWithout(t *testing.T) {
	span := func(start, end string) shard.Span { return shard.Span{Start: []byte(start), End: []byte(end)} }
	for _, c := range []struct {
		of     shard.Span
		others []shard.Span
		want   []shard.Span
	}{
		{span("", ""), nil, []shard.Span{span("", "")}},
		{span("", ""), []shard.Span{span("", "")}, nil},
		{span("", ""), []shard.Span{span("", "c")}, []shard.Span{span("c", "")}},
		{span("", ""), []shard.Span{span("c", "")}, []shard.Span{span("", "c")}},
		{span("b", "y"), []shard.Span{span("c", "d"), span("k", "l")}, []shard.Span{span("b", "c"), span("d", "k"), span("l", "y")}},
		{span("b", "y"), []shard.Span{span("a", "c"), span("b", "d"), span("x", "")}, []shard.Span{span("d", "x")}},
		{span("b", "y"), []shard.Span{span("y", ""), span("", "b")}, []shard.Span{span("b", "y")}},
	} {
		var want, got []string
		for _, s := range c.want {
			want = append(want, s.String())
		}
		left := []shard.Span{c.of}
		for _, o := range c.others {
			left = apply.Without(left, o)
		}
		for _, s := range left {
			got = append(got, s.String())
		}
		require.Equal(t, want, got, "%s without %v", c.of, c.others)
	}
}

// nobodys lists the keys that the store has versions of, and that no replica of the node has.
func (f *fixture) nobodys() (keys []string) {
	locals, err := f.engine.Locals()
	require.NoError(f.t, err)
	left := []shard.Span{shard.Everything()}
	for _, l := range locals {
		if l.Kind != apply.StateKind && l.Kind != apply.SeedKind {
			continue
		}
		v, err := apply.UnmarshalState(l.Value)
		require.NoError(f.t, err)
		if v.Descriptor != nil {
			left = apply.Without(left, v.Descriptor.Span)
		}
		if v.Frozen != nil {
			left = apply.Without(left, v.Frozen.Descriptor.Span)
		}
	}
	it, err := f.reader().NewIter(nil)
	require.NoError(f.t, err)
	for it.First(); it.Valid(); it.Next() {
		key, _, ok := engine.DecodeDataKey(it.Key())
		if ok && slices.ContainsFunc(left, func(s shard.Span) bool { return s.Contains(key) }) {
			keys = append(keys, string(key))
		}
	}
	require.NoError(f.t, it.Close())
	return keys
}

// amidst is a snapshot's stream in the middle of which something happens.
func amidst(stream []byte, happens func()) io.Reader {
	half := len(stream) - 12 // the head is before that, and the tail not
	return io.MultiReader(bytes.NewReader(stream[:half]), reading(happens), bytes.NewReader(stream[half:]))
}

type reading func()

func (f reading) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// ownedTwice returns the first two shards that have the same key on the node; zeros for none.
func (f *fixture) ownedTwice() (one, other shard.ID) {
	locals, err := f.engine.Locals()
	require.NoError(f.t, err)
	owners := make(map[shard.ID]shard.Span)
	for _, l := range locals {
		if l.Kind != apply.StateKind && l.Kind != apply.SeedKind {
			continue
		}
		v, err := apply.UnmarshalState(l.Value)
		require.NoError(f.t, err)
		if v.Descriptor == nil {
			continue
		}
		for id, span := range owners {
			if id != l.Shard && span.Overlaps(v.Descriptor.Span) {
				return id, l.Shard
			}
		}
		owners[l.Shard] = v.Descriptor.Span
	}
	return 0, 0
}

// While a replica receives a snapshot, which takes long, another shard gets some of its keys on the node: by the first
// entry of a log that goes back too far, by a snapshot from before a split, or by a seed. Whoever comes second is
// refused (A10).
func TestASnapshotIsOvertaken(t *testing.T) {
	const grandchild = testChild + 1
	start := initCommand(shard.Everything())
	other := newNode(t, 2, vfs.NewMem())
	other.apply(start)
	other.putAt("p", 10)
	old := other.stream() // of the parent, from before the split
	split := splitCommand(other.machine.View().Descriptor, testChild, 8, "m")
	require.NoError(t, other.apply(split)[0].Err)
	other.turn(testChild)
	other.apply(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: split.Child})
	next := splitCommand(other.machine.View().Descriptor, grandchild, 9, "t")
	require.NoError(t, other.apply(next)[0].Err)
	other.turn(grandchild)
	other.apply(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: next.Child})

	for name, overtake := range map[string]func(f *fixture){
		"by a log":      func(f *fixture) { f.apply(start) },
		"by a snapshot": func(f *fixture) { require.NoError(t, f.receive(old)) },
		"by a seed": func(f *fixture) {
			f.apply(start)
			require.NoError(t, f.apply(split)[0].Err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newNode(t, 1, vfs.NewMem())
			f.turn(grandchild)
			late := f.machine
			require.NoError(t, late.Restore(amidst(other.stream(), func() {
				f.turn(testShard)
				overtake(f)
				require.False(t, f.machine.View().Poisoned, "it was first")
			}), nil))
			one, two := f.ownedTwice()
			require.Equal(t, []shard.ID{0, 0}, []shard.ID{one, two}, "who have the same keys")
			require.True(t, late.View().Poisoned)
			f.restart()
			f.turn(grandchild)
			require.True(t, f.machine.View().Poisoned)
		})
	}
}

// A parent comes to its split while the child's replica on the node is being removed. Either its seed is there before the
// removal looks for what there is, or none is left: one that comes afterwards would stay for ever, and keep other
// shards out of the keys.
func TestASplitDuringARemoval(t *testing.T) {
	const kept = 200 * time.Millisecond // for how long the removal is seen to wait
	f := newFixture(t)
	gone, removed := make(chan struct{}), make(chan struct{})
	f.gone = func(id shard.ID, replica shard.ReplicaID) (bool, error) {
		if id != testChild {
			return false, nil
		}
		close(gone)
		select { // with the answer in hand
		case <-removed:
		case <-time.After(kept):
		}
		return false, nil
	}
	f.restart()
	f.apply(initCommand(shard.Everything()))
	f.putAt("p", 10)
	go func() {
		defer close(removed)
		<-gone
		e := f.engine
		func() { // the record that it is being removed
			e.Owners.Lock()
			defer e.Owners.Unlock()
		}()
		if err := apply.Discard(e, testChild, 1); err != nil {
			t.Error(err)
		}
		if err := apply.Forget(e, testChild, 1); err != nil {
			t.Error(err)
		}
	}()
	split := splitCommand(f.machine.View().Descriptor, testChild, 8, "m")
	require.NoError(t, f.apply(split)[0].Err)
	<-removed
	locals, err := f.engine.Locals()
	require.NoError(t, err)
	for _, l := range locals {
		require.NotEqual(t, testChild, l.Shard, "a record of kind %d", l.Kind)
	}
	require.Zero(t, f.dataIn(shard.DescriptorOf(split.Child).Span))
}

// A removal leaves what another replica gets while it looks, and goes on with the rest.
func TestARemovalLeavesWhatOthersHave(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	for _, key := range []string{"a", "n", "z"} {
		f.putAt(key, 10)
	}
	f.store()
	f.claim(&shard.Descriptor{ID: 9, Span: shard.Span{Start: []byte("m"), End: []byte("o")}, Epoch: 1, Generation: 1})
	require.NoError(t, apply.Discard(f.engine, testShard, testReplica))
	require.Equal(t, 1, f.dataIn(shard.Everything()))
	require.NoError(t, apply.Discard(f.engine, testShard, testReplica), "again")
	require.Equal(t, 1, f.dataIn(shard.Span{Start: []byte("m"), End: []byte("o")}))
}

// A left shard does not take over what its neighbour has while that is being removed: some may be gone.
func TestWhatIsBeingRemovedIsNotSubsumed(t *testing.T) {
	f, right := halves(t)
	plan := f.freezeRight(right, 50)
	f.store()
	leaving := false
	f.gone = func(id shard.ID, _ shard.ReplicaID) (bool, error) { return leaving && id == right.ID, nil }
	f.restart()
	leaving = true
	f.apply(plan.subsume(testOperator))
	require.True(t, f.machine.View().Poisoned)
}
