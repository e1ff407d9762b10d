package apply_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// never is for a Backlog that gathers nothing by itself.
func never(func()) {}

// opened opens a machine of the fixture's store with a backlog.
func (f *fixture) opened(id shard.ID, b *apply.Backlog) *apply.Machine {
	f.backlog = b
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

// Whoever reads while updates come finds what the view speaks of, whether it is stored, is kept
// or is on its way (A13, V7): the last key was written at the view's revision.
func TestReadersFindWhatIsKept(t *testing.T) {
	f := newFixture(t)
	f.machine = f.opened(testShard, apply.NewBacklog(8<<10, f.gathering.Go))
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
		f.update(f.puts(fmt.Sprint(i%7), i%20))
	}
	close(over)
	readers.Wait()
}

// A crash takes what is kept, and the applied index with it: replayed, the log gives the
// same state as on a replica that keeps nothing (A1, A3). What was stored and synced stays.
func TestCrashTakesWhatIsKept(t *testing.T) {
	f := newNode(t, 1, vfs.NewCrashableMem())
	f.machine = f.opened(testShard, apply.NewBacklog(1<<20, never))
	plain := newFixture(t)
	plain.machine = plain.opened(testShard, apply.NewBacklog(0, never))
	log := []apply.Entry{f.entry(initCommand(shard.Everything()))}
	for i := range 20 {
		log = append(log, f.puts(fmt.Sprint(i%3), i%10))
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
	f.machine = f.opened(testShard, apply.NewBacklog(1<<20, never))
	require.EqualValues(t, 10, f.machine.View().Applied)
	feed(f, log...)
	require.EqualValues(t, len(log), f.machine.View().Applied)
	require.Equal(t, plain.hash(), f.hash())
}

// What a machine keeps is let go by whatever needs it stored: a read, a change of more than
// versions, the machine's end. That what is kept is on its way makes no difference.
func TestWhatIsKeptIsStored(t *testing.T) {
	f := newFixture(t)
	room := apply.NewBacklog(20_000, never)
	f.machine = f.opened(testShard, room)
	f.apply(initCommand(shard.Everything()))
	behind := func() uint64 { return f.machine.View().Applied - f.storedIndex(testShard) }
	update := func() { f.update(f.puts("few", 2)) }
	with := func(cmd *shardpb.Command) { // an update with something else in it
		f.update(f.entry(append(f.putCommands("few", 2), cmd)...))
	}
	for name, ending := range map[string]func(){
		"a read": func() {
			_, err := f.machine.FetchSpan(shard.PointSpan([]byte("few001")), 0, mvccAll)
			require.NoError(t, err)
		},
		"an update after a read": func() {
			_, err := f.machine.FetchSpan(shard.PointSpan([]byte("few001")), 0, mvccAll)
			require.NoError(t, err)
			update()
		},
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
		"who has it stored": func() { require.NoError(t, f.machine.Store()) },
		"the machine's end": func() {
			f.machine.Close()
			require.Zero(t, behind())
			f.machine = f.opened(testShard, room)
		},
	} {
		t.Run(name, func(t *testing.T) {
			update()
			require.NoError(t, f.machine.Store())
			update()
			update()
			require.EqualValues(t, 2, behind())
			ending()
			require.Zero(t, behind())

			update()
			require.NoError(t, f.machine.Store())
			update()
			f.gathering.Go(room.TakeOut().Store)
			update()
			ending()
			require.Zero(t, behind())
			taken, _ := room.Taken()
			require.Zero(t, taken)
		})
	}
}

// However much was kept, what ends it is one batch with it: the versions, what was done to leases, the state.
func TestMuchIsStoredAtOnce(t *testing.T) {
	f := newFixture(t)
	f.machine = f.opened(testShard, apply.NewBacklog(16<<20, never))
	f.apply(initCommand(shard.Everything()))
	value := make([]byte, 512<<10)
	for i := range 8 {
		require.NoError(t, f.apply(command(t, shardpb.Kind_PUT, 0, &pb.PutRequest{Key: fmt.Append(nil, i), Value: value}))[0].Err)
	}
	require.EqualValues(t, 8, f.machine.View().Applied-f.storedIndex(testShard))
	for _, r := range f.apply(
		command(t, shardpb.Kind_LEASE_REIGN, 1, &shardpb.LeaseCommand{}),
		command(t, shardpb.Kind_LEASE_GRANT, 1, &shardpb.LeaseCommand{Lease: 41, Ttl: 60}),
	) {
		require.NoError(t, r.Err)
	}
	require.Equal(t, f.machine.View().Applied, f.storedIndex(testShard))

	view, leases := f.machine.View(), f.machine.Leases().State()
	require.Len(t, leases.Records, 1)
	f.restart()
	require.Equal(t, view, f.machine.View())
	require.True(t, proto.Equal(leases, f.machine.Leases().State()))
	found, err := f.machine.FetchSpan(shard.Everything(), 0, mvccAll)
	require.NoError(t, err)
	require.Len(t, found.KVs, 8)
	require.Len(t, found.KVs[7].Value, len(value))
}

// That a replica is poisoned is stored at once, although it wrote nothing: after a crash its log
// could find a seed that was not there before (A9).
func TestPoisonIsStored(t *testing.T) {
	f := newFixture(t)
	f.machine = f.opened(testShard, apply.NewBacklog(20_000, never))
	start := initCommand(shard.Everything())
	start.Descriptor_.ParentShardId = uint64(testShard) + 1
	require.Error(t, f.apply(start)[0].Err)
	require.True(t, f.machine.View().Poisoned)
	require.EqualValues(t, 1, f.storedIndex(testShard))
}

// A garbage collector leaves what is kept where it is: it has no need of it, and must not wait
// for an update, which may wait for it.
func TestCollectorStoresNothing(t *testing.T) {
	f := newFixture(t)
	f.machine = f.opened(testShard, apply.NewBacklog(20_000, never))
	f.apply(initCommand(shard.Everything()))
	f.update(f.puts("a", 9))
	f.update(f.puts("a", 9))
	f.apply(&shardpb.Command{Kind: shardpb.Kind_COMPACT, Epoch: testEpoch, Revision: int64(f.machine.View().Rev)})
	f.update(f.puts("a", 9))
	require.EqualValues(t, 1, f.machine.View().Applied-f.storedIndex(testShard))
	step, err := f.machine.Collect(mvcc.CollectLimits{})
	require.NoError(t, err)
	require.True(t, step.Done)
	require.Equal(t, 9, step.Dropped, "the first version of each key but the last, which a watch may ask for")
	require.EqualValues(t, 1, f.machine.View().Applied-f.storedIndex(testShard))
}
