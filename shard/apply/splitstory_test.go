package apply_test

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

const testChild shard.ID = 3

// splitCommand splits a shard as the placement table would: the descriptor is what the
// shard has now.
func splitCommand(d *shard.Descriptor, child shard.ID, slot shard.Slot, key string) *shardpb.Command {
	left := *d
	left.Span.End = []byte(key)
	left.Epoch++
	left.Generation++
	right := &shard.Descriptor{
		ID: child, Span: shard.Span{Start: []byte(key), End: d.Span.End}, Epoch: left.Epoch, Slot: slot, Generation: 1,
		Replicas: []shard.Replica{{ID: 1, Node: 1}, {ID: 2, Node: 2}}, NextReplicaID: 3, Parent: d.ID,
	}
	return &shardpb.Command{Kind: shardpb.Kind_SPLIT, Epoch: d.Epoch, Descriptor_: left.Proto(), Child: right.Proto()}
}

func (s *story) splitStep(a args) string {
	switch a.Cmd {
	case "split":
		return s.split(a)
	case "seed":
		return s.seed()
	case "sync":
		s.store()
		require.NoError(s.t, s.engine.Sync())
		return ""
	case "stored":
		return s.versions()
	case "snapshot":
		s.sent = s.stream()
		return ""
	case "receive":
		require.NoError(s.t, s.receive(s.sent))
		return s.view()
	case "shard":
		s.turn(shard.ID(a.int("id", 0)))
		return ""
	case "node":
		return s.toNode(a.int("n", 0))
	default:
		s.crash()
		return s.view()
	}
}

func (s *story) split(a args) string {
	cmd := splitCommand(s.machine.View().Descriptor, shard.ID(a.int("child", int64(testChild))), shard.Slot(a.int("slot", 8)), a.value("at"))
	cmd.Epoch = uint64(a.int("epoch", int64(testEpoch)))
	if a.HasArg("left-end") {
		cmd.Descriptor_.End = a.bytes("left-end")
	}
	if a.HasArg("child-end") {
		cmd.Child.End = a.bytes("child-end")
	}
	cmd.Child.Epoch = uint64(a.int("child-epoch", int64(cmd.Child.Epoch)))
	cmd.Child.ParentShardId = uint64(a.int("parent", int64(cmd.Child.ParentShardId)))
	cmd.Descriptor_.Generation = uint64(a.int("generation", int64(cmd.Descriptor_.Generation)))
	if !a.HasArg("again") {
		s.child = shard.DescriptorOf(cmd.Child)
	}
	if a.HasArg("nothing") {
		cmd.Child = nil
	}
	return s.write(a, cmd)
}

// seed prints what the node keeps for its replica of the child.
func (s *story) seed() string {
	data, err := s.engine.Local(s.child.ID, shard.ReplicaID(s.node), apply.SeedKind)
	require.NoError(s.t, err)
	if data == nil {
		return "no seed"
	}
	v, err := apply.UnmarshalState(data)
	require.NoError(s.t, err)
	return fmt.Sprintf("rev=%s floor=%s compacted=%s %s epoch=%d", rev(int64(v.Rev)), rev(int64(v.Floor)), rev(int64(v.Compacted)), v.Descriptor.Span, v.Descriptor.Epoch)
}

// versions lists the versions that the node has, whosever they are.
func (s *story) versions() string {
	var out strings.Builder
	it, err := s.reader().NewIter(nil)
	require.NoError(s.t, err)
	for it.First(); it.Valid(); it.Next() {
		if key, r, ok := engine.DecodeDataKey(it.Key()); ok {
			fmt.Fprintf(&out, "%s@%s ", key, rev(int64(r)))
		}
	}
	require.NoError(s.t, it.Close())
	return out.String()
}

// stream is a snapshot of the machine at hand.
func (f *fixture) stream() []byte {
	view := f.machine.View()
	state, err := apply.MarshalSnapshot(view, f.machine.Leases().State())
	require.NoError(f.t, err)
	var stream bytes.Buffer
	f.store()
	data := f.engine.NewView(view.Descriptor.Span)
	require.NoError(f.t, mvcc.WriteSnapshot(&stream, data, func(read func()) { read() }, view.Descriptor.Span, state, nil))
	require.NoError(f.t, data.Close())
	return stream.Bytes()
}

func (f *fixture) receive(stream []byte) error {
	err := f.machine.Restore(bytes.NewReader(stream), nil)
	f.index = f.machine.View().Applied
	return err
}

func (s *story) toNode(n int64) string {
	id := s.id
	if s.nodes[n] == nil {
		s.nodes[n] = newNode(s.t, shard.NodeID(n), vfs.NewCrashableMem())
	}
	s.fixture = s.nodes[n]
	if s.id != id {
		s.turn(id)
	}
	return ""
}

// crash loses all that was not synced.
func (f *fixture) crash() { f.crashKeeping(vfs.CrashCloneCfg{}) }

// crashKeeping loses some of it.
func (f *fixture) crashKeeping(some vfs.CrashCloneCfg) {
	f.fs = f.fs.(*vfs.MemFS).CrashClone(some)
	f.close()
	f.open()
}
