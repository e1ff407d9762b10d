package apply_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// opened opens a machine of the fixture's store with a backlog.
func (f *fixture) opened(id shard.ID, b *apply.Backlog) *apply.Machine {
	m, err := apply.Open(f.engine, id, testReplica, apply.Options{Rows: f.rows, Node: f.node, Backlog: b})
	require.NoError(f.t, err)
	return m
}

// puts is an entry of n puts to keys that begin with the prefix, and the last one of all entries.
func (f *fixture) puts(prefix string, n int) apply.Entry { return f.entry(f.putCommands(prefix, n)...) }

func (f *fixture) putCommands(prefix string, n int) (cmds []*shardpb.Command) {
	for i := range n {
		cmds = append(cmds, command(f.t, shardpb.Kind_PUT, 0, &pb.PutRequest{Key: fmt.Appendf(nil, "%s%03d", prefix, i), Value: []byte(prefix)}))
	}
	return append(cmds, command(f.t, shardpb.Kind_PUT, 0, &pb.PutRequest{Key: []byte("last"), Value: []byte(prefix)}))
}

// storedIndex is the applied index that the store has.
func (f *fixture) storedIndex(id shard.ID) uint64 {
	data, err := f.engine.Local(id, testReplica, apply.StateKind)
	require.NoError(f.t, err)
	view, err := apply.UnmarshalState(data)
	require.NoError(f.t, err)
	return view.Applied
}

// Whoever reads while large updates come finds what the view speaks of, whether it is stored
// or not (A12, V7): the last key was written at the view's revision.
func TestReadersFindWhatIsKept(t *testing.T) {
	f := newFixture(t)
	f.machine = f.opened(testShard, apply.NewBacklog(1<<20, 2))
	f.apply(initCommand(shard.Everything()))
	f.update(f.puts("first", 1))
	over := make(chan struct{})
	var readers sync.WaitGroup
	for _, span := range []shard.Span{shard.PointSpan([]byte("last")), {Start: []byte("l"), End: []byte("m")}} {
		readers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-over:
					return
				default:
				}
				at := f.machine.View().Rev
				got, err := f.machine.FetchSpan(span, at, mvccAll)
				require.NoError(t, err)
				require.Len(t, got.KVs, 1)
				require.Equal(t, int64(at), got.KVs[0].ModRevision)
			}
		})
	}
	for i := range 300 {
		f.update(f.puts(fmt.Sprint(i%7), 1+i%20))
	}
	close(over)
	readers.Wait()
}

// A crash takes what is kept, and the applied index with it: replayed, the log gives the
// same state as on a replica that keeps nothing (A1, A3). What was stored and synced stays.
func TestCrashTakesWhatIsKept(t *testing.T) {
	f := newNode(t, 1, vfs.NewCrashableMem())
	f.machine = f.opened(testShard, apply.NewBacklog(1<<20, 1))
	plain := newFixture(t)
	plain.machine = plain.opened(testShard, apply.NewBacklog(0, 1))
	log := []apply.Entry{f.entry(initCommand(shard.Everything()))}
	for i := range 20 {
		log = append(log, f.puts(fmt.Sprint(i%3), 10))
	}
	feed := func(f *fixture, entries ...apply.Entry) {
		require.NoError(t, f.machine.Update(entries, nil))
	}
	for _, e := range log {
		feed(plain, e)
	}
	for _, e := range log[:10] {
		feed(f, e)
	}
	require.NoError(t, f.machine.Store())
	require.NoError(t, f.engine.Sync())
	for _, e := range log[10:15] {
		feed(f, e)
	}
	require.EqualValues(t, 15, f.machine.View().Applied)
	require.EqualValues(t, 10, f.storedIndex(testShard), "nobody has read: the rest is kept")
	require.NoError(t, f.engine.Sync())
	f.crash()
	f.machine = f.opened(testShard, apply.NewBacklog(1<<20, 1))
	require.EqualValues(t, 10, f.machine.View().Applied)
	feed(f, log...)
	require.EqualValues(t, len(log), f.machine.View().Applied)
	require.Equal(t, plain.hash(), f.hash())
}

// What is kept is bounded for all machines of a node together, and is let go by whatever needs
// it stored: a read, a small update, a change of the descriptor, the machine's end.
func TestBacklogIsBounded(t *testing.T) {
	f := newFixture(t)
	room := apply.NewBacklog(20_000, 5) // some sixty versions
	f.machine = f.opened(testShard, room)
	f.apply(initCommand(shard.Everything()))
	behind := func() uint64 { return f.machine.View().Applied - f.storedIndex(testShard) }
	large := func() { f.update(f.puts("large", 9)) }
	with := func(cmd *shardpb.Command) { // a large update with something else in it
		f.update(f.entry(append(f.putCommands("large", 9), cmd)...))
	}

	for range 50 {
		large()
		require.LessOrEqual(t, behind(), uint64(10), "about as many updates as there is room for")
	}
	for name, ending := range map[string]func(){
		"a read": func() {
			_, err := f.machine.FetchSpan(shard.PointSpan([]byte("large003")), 0, mvccAll)
			require.NoError(t, err)
		},
		"a small update": func() { f.update(f.puts("small", 1)) },
		"a compaction": func() {
			with(&shardpb.Command{Kind: shardpb.Kind_COMPACT, Epoch: testEpoch, Revision: int64(f.machine.View().Rev)})
		},
		"a descriptor": func() {
			d := f.machine.View().Descriptor.Proto()
			d.Generation++
			with(&shardpb.Command{Kind: shardpb.Kind_UPDATE, Epoch: testEpoch, Descriptor_: d})
		},
		"a lease": func() { with(command(t, shardpb.Kind_LEASE_REIGN, 0, &shardpb.LeaseCommand{})) },
		"a checksum": func() {
			with(command(t, shardpb.Kind_CHECKSUM, 0, &shardpb.ChecksumCommand{Format: apply.ChecksumFormat}))
		},
		"an update that reads a span": func() {
			with(command(t, shardpb.Kind_DELETE_RANGE, 0, &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("z")}))
		},
		"a garbage collector": func() {
			_, err := f.machine.Collect(mvcc.CollectLimits{})
			require.NoError(t, err)
		},
		"who has it stored": func() { require.NoError(t, f.machine.Store()) },
	} {
		t.Run(name, func(t *testing.T) {
			f.apply(&shardpb.Command{Kind: shardpb.Kind_COMPACT, Epoch: testEpoch, Revision: int64(f.machine.View().Rev)})
			large()
			large()
			require.NotZero(t, behind())
			ending()
			require.Zero(t, behind())
		})
	}

	large()
	large()
	require.NotZero(t, behind())
	f.machine.Close()
	require.Zero(t, behind())
	f.machine = f.opened(testShard, room)
	large()
	require.NotZero(t, behind(), "the room was given back")
}
