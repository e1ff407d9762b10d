package raftlog

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

// BenchmarkOpen reads a log of 256 MiB that is in the file system's cache, all of which counts.
func BenchmarkOpen(b *testing.B) {
	for _, size := range []int{128, 4 << 10} {
		b.Run(fmt.Sprintf("entries of %d bytes", size), func(b *testing.B) {
			path := b.TempDir()
			l, err := open(path, Options{})
			require.NoError(b, err)
			const groups, perSave = 8, 64
			for i := uint64(0); l.size() < 256<<20; i++ {
				u := raftpb.Update{ShardID: 1 + i%groups, ReplicaID: 1, State: raftpb.State{Term: 1, Commit: i / groups * perSave}}
				for j := range uint64(perSave) {
					u.EntriesToSave = append(u.EntriesToSave, raftpb.Entry{Index: i/groups*perSave + j + 1, Term: 1, Cmd: make([]byte, size)})
				}
				require.NoError(b, l.SaveRaftState([]raftpb.Update{u}, 1))
			}
			b.SetBytes(l.size())
			require.NoError(b, l.Close())
			for b.Loop() {
				l, err := open(path, Options{})
				require.NoError(b, err)
				require.NoError(b, l.Close())
			}
		})
	}
}

// unsynced is a disk that is infinitely fast to sync, and forgets what it is given.
type unsynced struct{ vfs.FS }

func (u unsynced) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := u.FS.OpenReadWrite(name, c, o...)
	return forgetful{f}, err
}

type forgetful struct{ vfs.File }

func (forgetful) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// BenchmarkSave is what the processor does for a save, without the kernel.
func BenchmarkSave(b *testing.B) {
	for _, c := range []struct{ groups, entries, size int }{{1, 1, 256}, {8, 1, 256}, {1, 1, 64 << 10}, {8, 8, 256}} {
		b.Run(fmt.Sprintf("%d groups with %d entries of %d bytes", c.groups, c.entries, c.size), func(b *testing.B) {
			l, err := open(dir, Options{FS: unsynced{vfs.NewMem()}})
			require.NoError(b, err)
			cmd := make([]byte, c.size)
			updates := make([]raftpb.Update, c.groups)
			for i := range updates {
				updates[i] = raftpb.Update{ShardID: uint64(i + 1), ReplicaID: 1, EntriesToSave: make([]raftpb.Entry, c.entries)}
			}
			b.ReportAllocs()
			for index := uint64(1); b.Loop(); {
				for i := range updates {
					u := &updates[i]
					u.State = raftpb.State{Term: 1, Vote: 1, Commit: index}
					for j := range u.EntriesToSave {
						u.EntriesToSave[j] = raftpb.Entry{Index: index + uint64(j), Term: 1, Cmd: cmd}
					}
				}
				if err := l.SaveRaftState(updates, 1); err != nil {
					b.Fatal(err)
				}
				index += uint64(c.entries)
				if index%4096 == 1 {
					for i := range updates {
						if err := l.RemoveEntriesTo(updates[i].ShardID, 1, index-1); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
			require.NoError(b, l.Close())
		})
	}
}
