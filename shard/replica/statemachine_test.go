package replica

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/lni/dragonboat/v4/statemachine"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

func everything(t *testing.T, r *Replica) *pb.RangeResponse {
	t.Helper()
	resp, err := r.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, 0)
	require.NoError(t, err)
	return resp
}

// receiver is a replica that waits for a snapshot, in a process without a group.
func receiver(t *testing.T, p *process, id shard.ReplicaID) *stateMachine {
	t.Helper()
	machine, err := apply.Open(p.engine, testShard, id, apply.Options{})
	require.NoError(t, err)
	return &stateMachine{replica: newReplica(p.host, testShard, id, machine)}
}

// sender is a replica with some keys, old versions and a floor above its revision.
func sender(t *testing.T) (*process, *stateMachine) {
	t.Helper()
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	t.Cleanup(p.close)
	p.startNew()
	for i := range 200 {
		p.put(fmt.Sprintf("key%03d", i%150), fmt.Sprint(i))
	}
	floor := p.replica.View().Floor + 5000
	require.NoError(t, p.propose(&shardpb.Command{Kind: shardpb.Kind_CLOSE, Epoch: 1, Revision: int64(floor)}).Err)
	return p, &stateMachine{replica: p.replica}
}

func TestSnapshotBringsAnotherReplicaUp(t *testing.T) {
	from, sm := sender(t)
	want := everything(t, from.replica)
	view := from.replica.View()
	prepared, err := sm.PrepareSnapshot()
	require.NoError(t, err)
	from.put("key000", "after the snapshot was prepared")
	from.put("new", "too")
	var stream bytes.Buffer
	require.NoError(t, sm.SaveSnapshot(prepared, &stream, nil))

	to := openProcess(t, t.TempDir(), 2, Knobs{})
	defer func() { to.close() }()
	got := receiver(t, to, 5)
	waited := make(chan error, 1)
	go func() { waited <- got.replica.WaitFloor(t.Context(), view.Floor) }()
	require.NoError(t, got.RecoverFromSnapshot(bytes.NewReader(stream.Bytes()), nil))
	require.NoError(t, <-waited, "a snapshot wakes those who wait for a floor")
	require.Equal(t, want.Kvs, everything(t, got.replica).Kvs)
	require.Equal(t, view, got.replica.View())
	require.GreaterOrEqual(t, to.source.Seen(), view.Rev)

	// The state is the receiver's own and durable with the data: it opens again.
	again := receiver(t, to, 5)
	require.Equal(t, view, again.replica.View())
	require.Nil(t, receiver(t, to, 6).replica.View().Descriptor)
	index, err := again.Open(nil)
	require.NoError(t, err)
	require.Equal(t, view.Applied, index)

	// A second, later snapshot replaces all of it.
	prepared, err = sm.PrepareSnapshot()
	require.NoError(t, err)
	stream.Reset()
	require.NoError(t, sm.SaveSnapshot(prepared, &stream, nil))
	require.NoError(t, again.RecoverFromSnapshot(&stream, nil))
	require.Equal(t, everything(t, from.replica).Kvs, everything(t, again.replica).Kvs)
}

// What the log may forget after a Sync is in the store, what is kept in memory for a while
// included.
func TestSyncStoresWhatWasApplied(t *testing.T) {
	p, sm := sender(t)
	p.put("key", "kept in memory")
	require.NoError(t, sm.Sync())
	data, err := sm.replica.host.cfg.Engine.Local(testShard, sm.replica.replicaID, apply.StateKind)
	require.NoError(t, err)
	stored, err := apply.UnmarshalState(data)
	require.NoError(t, err)
	require.Equal(t, sm.replica.View().Applied, stored.Applied)
}

// A snapshot that is cut short or damaged changes nothing.
func TestDamagedSnapshotIsRefused(t *testing.T) {
	_, sm := sender(t)
	prepared, err := sm.PrepareSnapshot()
	require.NoError(t, err)
	var stream bytes.Buffer
	require.NoError(t, sm.SaveSnapshot(prepared, &stream, nil))

	to := openProcess(t, t.TempDir(), 2, Knobs{})
	defer func() { to.close() }()
	got := receiver(t, to, 5)
	whole := stream.Bytes()
	for at := 0; at < len(whole); at += 1 + len(whole)/60 {
		require.Error(t, got.RecoverFromSnapshot(bytes.NewReader(whole[:at]), nil), "cut at %d", at)
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x40
		require.Error(t, got.RecoverFromSnapshot(bytes.NewReader(damaged), nil), "flipped at %d", at)
		require.Nil(t, got.replica.View().Descriptor)
	}
	require.NoError(t, got.RecoverFromSnapshot(bytes.NewReader(whole), nil))
}

// dragonboat ends the process on any error but its own ones for "stopped".
func TestStoppedSnapshotsSayItInDragonboatsWords(t *testing.T) {
	from, sm := sender(t)
	stop := make(chan struct{})
	close(stop)
	prepared, err := sm.PrepareSnapshot()
	require.NoError(t, err)
	var stream bytes.Buffer
	require.ErrorIs(t, sm.SaveSnapshot(prepared, &stream, stop), statemachine.ErrSnapshotStopped)

	for _, lost := range []error{statemachine.ErrSnapshotStopped, statemachine.ErrSnapshotStreaming} {
		prepared, err = sm.PrepareSnapshot()
		require.NoError(t, err)
		require.ErrorIs(t, sm.SaveSnapshot(prepared, failingWriter{lost}, nil), lost)
	}

	prepared, err = sm.PrepareSnapshot()
	require.NoError(t, err)
	stream.Reset()
	require.NoError(t, sm.SaveSnapshot(prepared, &stream, nil))
	got := receiver(t, from, 5)
	require.ErrorIs(t, got.RecoverFromSnapshot(&stream, stop), statemachine.ErrSnapshotStopped)

	_, err = receiver(t, from, 6).PrepareSnapshot()
	require.ErrorIs(t, err, statemachine.ErrSnapshotAborted, "nothing to send before INIT")
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestStateMachineIsNotReadThroughRaft(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	sm := receiver(t, p, 5)
	_, err := sm.Lookup(nil)
	require.Error(t, err)
	require.NoError(t, sm.Sync())
	require.NoError(t, sm.Close())
}

// Entries that were applied before, as after a crash, are passed over.
func TestUpdatePassesOverWhatWasApplied(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	sm := receiver(t, p, 5)
	d := &shard.Descriptor{ID: testShard, Epoch: 1, Slot: 9, Generation: 1}
	entry := func(index uint64, cmds ...*shardpb.Command) statemachine.Entry {
		data, err := (&shardpb.Batch{Format: 1, NodeId: uint64(testNode), Incarnation: 1, Sequence: index, Commands: cmds}).MarshalVT()
		require.NoError(t, err)
		return statemachine.Entry{Index: index, Cmd: data}
	}
	told := 0
	sm.replica.proposer.mu.flights[2] = []pending{{done: func(r shard.Result) { require.NoError(t, r.Err); told++ }}}
	log := []statemachine.Entry{
		entry(1, &shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: d.Proto()}),
		entry(2, putCommand("a", "1")),
		{Index: 3, Cmd: []byte("\xff no batch")},
		entry(4, putCommand("b", "1")),
	}
	_, err := sm.Update(log)
	require.NoError(t, err)
	before := everything(t, sm.replica)
	_, err = sm.Update(log)
	require.NoError(t, err)
	require.Equal(t, before.Kvs, everything(t, sm.replica).Kvs)
	require.Equal(t, uint64(4), sm.replica.View().Applied)
	require.Equal(t, 1, told)
	require.False(t, errors.Is(err, shard.ErrCorrupt))
}
