package raftlog

import (
	"encoding/hex"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

// Segments outlive the process: docs/FORMATS.md draws them. A difference means that logs of other releases could
// not be read: make a new format instead.
func TestSegmentBytes(t *testing.T) {
	fs := vfs.NewMem()
	l := openSmall(t, fs)
	require.NoError(t, l.SaveBootstrapInfo(0x102, 3, raftpb.Bootstrap{Addresses: map[uint64]string{3: "n1:1"}}))
	ss := raftpb.Update{ShardID: 0x102, ReplicaID: 3, Snapshot: raftpb.Snapshot{Index: 1, Term: 1, ShardID: 0x102}}
	save(t, l,
		update(0x102, 3, raftpb.State{Term: 1, Vote: 3, Commit: 1}, raftpb.Entry{Index: 1, Term: 1, Cmd: []byte("one")}, raftpb.Entry{Index: 2, Term: 1, Cmd: []byte("two")}),
		update(0x103, 1, raftpb.State{Term: 2}))
	require.NoError(t, l.SaveSnapshots([]raftpb.Update{ss}))
	require.NoError(t, l.RemoveEntriesTo(0x102, 3, 1))
	require.NoError(t, l.RemoveNodeData(0x103, 1))
	require.NoError(t, l.Close())
	l = openSmall(t, fs)
	dump := func(s *segment, behind int64) string {
		name := segmentName(s.number)
		return name + "\n" + hex.Dump(readFile(t, fs, dir+"/"+name)[:s.size+behind]) + "\n"
	}
	got := dump(l.segments[0], recordHeadLength+itemHeadLength) // with the note that another one follows
	require.NoError(t, l.empty(l.segments[0]))
	require.NoError(t, l.drop(l.segments[0]))
	got += dump(l.segments[0], 0)
	require.NoError(t, l.Close())
	want, err := os.ReadFile("testdata/segments.golden")
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}
