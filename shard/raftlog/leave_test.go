package raftlog

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

// watchedSyncs tells of each sync that begins.
type watchedSyncs struct {
	vfs.FS
	begins func()
}

func (w watchedSyncs) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := w.FS.OpenReadWrite(name, c, o...)
	return watchedFile{f, w.begins}, err
}

type watchedFile struct {
	vfs.File
	begins func()
}

func (f watchedFile) SyncData() error {
	f.begins()
	return f.File.SyncData()
}

// A goroutine that was woken to send an entry runs before the entry is synced.
func TestMessagesLeaveBeforeTheSync(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that nothing runs at the same time
	var sent atomic.Bool
	before := 0
	fs := watchedSyncs{vfs.NewMem(), func() {
		if sent.Load() {
			before++
		}
	}}
	l, err := open(dir, Options{FS: fs})
	require.NoError(t, err)
	const saves = 100
	before = 0
	for index := uint64(1); index <= saves; index++ {
		u := update(1, 1, raftpb.State{Term: 1, Vote: 1, Commit: index - 1}, entries(1, index, index)...)
		u.Messages = []raftpb.Message{{Type: raftpb.Replicate, To: 2, Entries: u.EntriesToSave}}
		sent.Store(false)
		done := make(chan struct{})
		go func() {
			sent.Store(true)
			close(done)
		}()
		save(t, l, u)
		<-done
	}
	require.Greater(t, before, saves*9/10) // now and then the scheduler prefers the one that yields
	require.NoError(t, l.Close())
}

func TestOnlyLittleLeavesFirst(t *testing.T) {
	few := []raftpb.Entry{{Index: 1, Cmd: make([]byte, leaveBytesMax)}}
	many := append(few[:1:1], raftpb.Entry{Index: 2, Cmd: make([]byte, 1)})
	replicate := func(entries []raftpb.Entry) []raftpb.Message {
		return []raftpb.Message{{Type: raftpb.Replicate, To: 2, Entries: entries}}
	}
	for name, c := range map[string]struct {
		update raftpb.Update
		first  bool
	}{
		"a leader's few":     {raftpb.Update{EntriesToSave: few, Messages: replicate(few)}, true},
		"a leader's many":    {raftpb.Update{EntriesToSave: many, Messages: replicate(many)}, false},
		"sent again":         {raftpb.Update{Messages: replicate(many)}, false},
		"a commit index":     {raftpb.Update{Messages: replicate(nil)}, false},
		"a follower's entry": {raftpb.Update{EntriesToSave: few, Messages: []raftpb.Message{{Type: raftpb.ReplicateResp, To: 2}}}, false},
	} {
		require.Equal(t, c.first, sendsLittle([]raftpb.Update{c.update}), name)
	}
}
