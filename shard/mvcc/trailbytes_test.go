package mvcc

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// A list of large values ends early, with a whole revision, and whoever goes on from there misses nothing.
func TestListsOfLargeValues(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	const revisions = 16
	value := bytes.Repeat([]byte("v"), 300<<10)
	changesOf(t, e, revisions, 2, func(int) []byte { return value })
	for _, prev := range []bool{false, true} {
		t.Run(fmt.Sprintf("prev_kv=%v", prev), func(t *testing.T) {
			trails := NewTrails(1 << 20)
			from, last, lists := shard.Revision(1), shard.Revision(9+revisions), 0
			for ; from < last; lists++ {
				events, through, err := trails.Events(e.NewReader(), shard.Everything(), from, last, EventsOptions{Limit: 256, PrevKV: prev}, granted)
				require.NoError(t, err)
				size := 0
				for i, ev := range events {
					require.Equal(t, int64(max(from, 9))+int64(i/2)+1, ev.Kv.ModRevision, "none is missing")
					size += len(ev.Kv.Value) + len(ev.PrevKv.GetValue())
				}
				require.LessOrEqual(t, size, eventsBytesMax)
				require.Equal(t, int64(through), events[len(events)-1].Kv.ModRevision)
				require.Zero(t, len(events)%2, "revisions are whole")
				from = through
			}
			require.Greater(t, lists, 4)
		})
	}
}
