package replica

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
	"github.com/flotilla-kv/flotilla/shard/watch"
)

// P5 holds for a replica that joins: without its log it does not start again. It stays
// the learner that it began as, whatever is asked for later.
func TestJoinerStartsOnce(t *testing.T) {
	const joiner shard.ReplicaID = 4
	dir := t.TempDir()
	p := openProcess(t, dir, 1, Knobs{})
	require.NoError(t, p.host.Join(testShard, joiner, true))
	p.close()

	p = openProcess(t, dir, 2, Knobs{})
	require.Equal(t, []Held{{testShard, joiner}}, p.host.Held())
	require.NoError(t, p.host.Join(testShard, joiner, false))
	record, err := p.host.record(testShard, joiner)
	require.NoError(t, err)
	require.True(t, record.Learner)
	require.Equal(t, shardpb.ReplicaRecord_STARTED, record.Phase)
	r, ok := p.host.Replica(testShard)
	require.True(t, ok)
	require.ErrorIs(t, r.CatchUp(t.Context()), shard.ErrUnavailable, "nobody knows of it")
	p.close()

	require.NoError(t, os.RemoveAll(raftDir(dir)))
	p = openProcess(t, dir, 3, Knobs{})
	defer func() { p.close() }()
	require.ErrorIs(t, p.host.Join(testShard, joiner, true), shard.ErrCorrupt)
}

// keys lists what the store has of the whole keyspace.
func (p *process) keys() (keys []string) {
	p.t.Helper()
	lower, upper := engine.DataSpanBounds(shard.Everything())
	it, err := p.engine.NewReader().NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	require.NoError(p.t, err)
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		key, _, ok := engine.DecodeDataKey(it.Key())
		require.True(p.t, ok)
		keys = append(keys, string(key))
	}
	return keys
}

func (p *process) remove() {
	p.t.Helper()
	require.NoError(p.t, p.host.Remove(p.t.Context(), testShard, testReplica))
	require.Empty(p.t, p.host.Held())
}

// Of a removed replica one small record stays, for ever (docs/FORMATS.md).
func TestARemovedReplicaLeavesLittle(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer p.close()
	p.startNew()
	p.put("k", "v")
	p.remove()
	const joiner = testReplica + 1
	require.NoError(t, p.host.Join(testShard, joiner, true))
	require.NoError(t, p.host.Remove(t.Context(), testShard, joiner))
	locals, err := p.engine.Locals()
	require.NoError(t, err)
	var sizes []int
	for _, l := range locals {
		require.Equal(t, recordKind, l.Kind)
		sizes = append(sizes, len(engine.LocalKey(l.Shard, l.Replica, l.Kind))+len(l.Value))
	}
	require.Equal(t, []int{19 + 4, 19 + 6}, sizes)
}

// What is removed is gone with its data, but for keys that others own; it does not come
// back, and another replica of the shard may come.
func TestRemove(t *testing.T) {
	dir := t.TempDir()
	p := openProcess(t, dir, 1, Knobs{})
	p.startNew()
	for _, key := range []string{"a", "m", "z"} {
		p.put(key, "1")
	}
	removed := p.replica
	other := &shard.Descriptor{ID: testShard + 1, Span: shard.Span{Start: []byte("m"), End: []byte("n")}, Epoch: 1, Generation: 1}
	state, err := apply.MarshalState(shard.View{Descriptor: other})
	require.NoError(t, err)
	b := p.engine.NewBatch()
	require.NoError(t, b.Set(engine.LocalKey(other.ID, testReplica, apply.StateKind), state, nil))
	require.NoError(t, p.engine.Commit(b))
	require.NoError(t, b.Close())
	p.remove()
	require.Equal(t, []string{"m"}, p.keys())
	_, err = removed.Range(&pb.RangeRequest{Key: []byte("a")}, 0)
	require.ErrorIs(t, err, shard.ErrUnavailable, "a read that was under way does not take it for an empty shard")
	p.remove() // again

	founding := map[shard.ReplicaID]string{testReplica: "n7:1"}
	require.ErrorIs(t, p.host.Start(testShard, testReplica, founding), ErrRemoved)
	p.close()
	p = openProcess(t, dir, 2, Knobs{})
	defer func() { p.close() }()
	require.Empty(t, p.host.Held())
	require.ErrorIs(t, p.host.Start(testShard, testReplica, founding), ErrRemoved)
	require.NoError(t, p.host.Join(testShard, testReplica+1, true))
	r, ok := p.host.Replica(testShard)
	require.True(t, ok)
	require.Nil(t, r.View().Descriptor)
}

// A split leaves nothing for a replica that was removed from the node before its parent came to the split.
func TestNoSeedForARemovedReplica(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	rest := *p.replica.View().Descriptor
	rest.Span.End = []byte("m")
	rest.Epoch++
	rest.Generation++
	child := &shard.Descriptor{
		ID: testShard + 1, Span: shard.Span{Start: []byte("m")}, Epoch: rest.Epoch, Slot: rest.Slot + 1, Generation: 1,
		Replicas: []shard.Replica{{ID: testReplica, Node: p.host.cfg.Node}}, NextReplicaID: testReplica + 1, Parent: testShard,
	}
	require.NoError(t, p.host.Join(child.ID, testReplica, false))
	require.NoError(t, p.host.Remove(t.Context(), child.ID, testReplica))
	require.NoError(t, p.replica.Split(t.Context(), &rest, child))
	seed, err := p.engine.Local(child.ID, testReplica, apply.SeedKind)
	require.NoError(t, err)
	require.Nil(t, seed)
}

// A removal waits until the replica has closed: closing it stores what it kept in memory, which nobody would remove
// later. No other replica of the shard starts before that.
func TestARemovalAwaitsTheEnd(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	last := p.put("a", "1")
	ending, held := make(chan struct{}), make(chan struct{})
	end := sync.OnceFunc(func() { close(held) })
	defer end()
	_, err := p.replica.Subscribe(watch.Options{Epoch: 1, Span: shard.PointSpan([]byte("b")), From: last + 1, Ready: func() {
		close(ending)
		<-held
	}})
	require.NoError(t, err)
	require.NoError(t, p.host.nh.StopReplica(uint64(testShard), uint64(testReplica)))
	<-ending // its workers have released it, and it is being closed

	now, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, p.host.Remove(now, testShard, testReplica), context.Canceled)
	require.ErrorIs(t, p.host.Join(testShard, testReplica+1, true), shard.ErrUnavailable)
	end()
	p.remove()
	require.Empty(t, p.keys())
	locals, err := p.engine.Locals()
	require.NoError(t, err)
	require.Len(t, locals, 1, "that it was removed")
	require.NoError(t, p.host.Join(testShard, testReplica+1, true))
	r, ok := p.host.Replica(testShard)
	require.True(t, ok)
	require.Equal(t, testReplica+1, r.ReplicaID())
}

// A crash in the middle of a removal leaves a replica that does not start and can be
// removed.
func TestRemovalIsCompletedAfterACrash(t *testing.T) {
	for name, crash := range map[string]func(p *process){
		"before its log went": func(*process) {},
		"after its log went": func(p *process) {
			require.NoError(p.t, p.host.nh.StopReplica(uint64(testShard), uint64(testReplica)))
			ctx, cancel := context.WithTimeout(p.t.Context(), patience)
			defer cancel()
			require.NoError(p.t, p.host.nh.SyncRemoveData(ctx, uint64(testShard), uint64(testReplica)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := openProcess(t, dir, 1, Knobs{})
			p.startNew()
			p.put("a", "1")
			require.NoError(t, p.host.enter(testShard, testReplica, shardpb.ReplicaRecord_REMOVING))
			crash(p)
			p.close()

			p = openProcess(t, dir, 2, Knobs{})
			defer func() { p.close() }()
			require.Equal(t, []Held{{testShard, testReplica}}, p.host.Held())
			require.ErrorIs(t, p.host.Start(testShard, testReplica, nil), ErrRemoved)
			p.remove()
			require.Empty(t, p.keys())
		})
	}
}

// Changes of members may be repeated. What the group refuses is said, not tried for ever.
func TestMembers(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 2 {
		require.NoError(t, p.replica.AddLearner(ctx, 2, "n8:1"))
	}
	require.ErrorContains(t, p.replica.Promote(ctx, 3, "n9:1"), "it is no learner")
	require.ErrorContains(t, p.replica.Promote(ctx, 2, "n9:1"), "refuses it as it is")
	for range 2 {
		require.NoError(t, p.replica.Dismiss(ctx, 2))
	}
	require.ErrorIs(t, p.replica.AddLearner(ctx, 2, "n8:1"), ErrRemoved)
	require.NoError(t, p.replica.Dismiss(ctx, 3), "one that never came cannot come any more")
	require.ErrorIs(t, p.replica.AddLearner(ctx, 3, "n9:1"), ErrRemoved)
	require.ErrorContains(t, p.replica.Dismiss(ctx, testReplica), "which leads")
	p.put("a", "1")

	require.NoError(t, p.replica.AddLearner(ctx, 4, "n8:1"))
	require.NoError(t, p.replica.Promote(ctx, 4, "n8:1"))
	short, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	require.Error(t, p.replica.Promote(short, 4, "n8:1"), "half of the voters cannot tell")
}
