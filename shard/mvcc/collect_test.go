package mvcc

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// stored lists the versions of the one key "k" as the engine has them, newest first;
// a tombstone has an x.
func stored(t *testing.T, e *engine.Engine) string {
	it, err := e.NewReader().NewIter(&pebble.IterOptions{LowerBound: engine.DataPrefix([]byte("k")), UpperBound: engine.DataPrefix([]byte("l"))})
	require.NoError(t, err)
	defer func() { require.NoError(t, it.Close()) }()
	var out []string
	for it.First(); it.Valid(); it.Next() {
		_, rev, _ := engine.DecodeDataKey(it.Key())
		flags, err := engine.Flags(it)
		require.NoError(t, err)
		mark := ""
		if flags&flagDeleted != 0 {
			mark = "x"
		}
		out = append(out, fmt.Sprintf("%d%s", rev, mark))
	}
	return strings.Join(out, " ")
}

func TestCollectKeeps(t *testing.T) {
	const put, del = "put k v", "del k"
	for _, c := range []struct {
		name      string
		history   []string // at revisions 10, 11, …
		compacted shard.Revision
		want      string
	}{
		{"nothing is old enough", []string{put, put}, 9, "11 10"},
		{"the only version", []string{put}, 50, "10"},
		{"the newest at or below", []string{put, put, put, put}, 12, "13 12 11"}, // 11 is what a watch from 12 shows as previous
		{"one revision later the previous goes", []string{put, put, put}, 13, "12"},
		{"a tombstone at exactly the revision and what it deleted", []string{put, put, del}, 12, "12x 11"},
		{"an older tombstone goes with all below", []string{put, put, del}, 13, ""},
		{"an older tombstone under a newer version", []string{put, del, put}, 12, "12"},
		{"a tombstone is nobody's previous value", []string{put, put, del, put}, 13, "13"},
		{"versions above stay", []string{put, del, put, del}, 11, "13x 12 11x 10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, limits := range []CollectLimits{{}, {Versions: 1}, {Drops: 1}, {Singles: 1}, {Versions: 3, Singles: 2}} {
				e := openEngine(t, vfs.NewMem())
				write(t, e, 10, c.history...)
				collectAll(t, e, c.compacted, limits)
				require.Equal(t, c.want, stored(t, e), "%+v", limits)
				require.NoError(t, e.Close())
			}
		})
	}
}

func collectAll(t *testing.T, e *engine.Engine, c shard.Revision, limits CollectLimits) {
	var from []byte
	for {
		b := e.NewBatch()
		out, err := Collect(e.NewReader(), b, shard.Everything(), 0, c, from, limits)
		require.NoError(t, err)
		require.NoError(t, e.Commit(b))
		require.NoError(t, b.Close())
		if out.Next == nil {
			return
		}
		from = out.Next
	}
}

// A long history under a tombstone is dropped over several steps. However few of them
// reach the disk, the key stays deleted.
func TestCollectNeverRevives(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	history := make([]string, 20)
	for i := range history {
		history[i] = "put k v"
	}
	write(t, e, 10, append(history, "del k")...)
	var from []byte
	for steps := 0; ; steps++ {
		b := e.NewBatch()
		out, err := Collect(e.NewReader(), b, shard.Everything(), 0, 100, from, CollectLimits{Drops: 3})
		require.NoError(t, err)
		require.NoError(t, e.Commit(b))
		require.NoError(t, b.Close())
		f, err := Fetch(e.NewReader(), shard.Everything(), 0, listing.FetchOptions{})
		require.NoError(t, err)
		require.Zero(t, f.Count, "after step %d", steps)
		if out.Next == nil {
			require.Greater(t, steps, 5)
			require.Empty(t, stored(t, e))
			return
		}
		from = out.Next
	}
}

// A history costs no more than its end is long.
func TestCollectDropsAHistoryAtOnce(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	history := make([]string, 1000)
	for i := range history {
		history[i] = "put k v"
	}
	write(t, e, 10, history...)
	write(t, e, 2000, "put k\x00 v") // the next key that there can be
	b := e.NewBatch()
	out, err := Collect(e.NewReader(), b, shard.Everything(), 0, 1500, nil, CollectLimits{Singles: 5})
	require.NoError(t, err)
	require.NoError(t, e.Commit(b))
	require.NoError(t, b.Close())
	require.Equal(t, Collected{Versions: 7, Dropped: 5, Histories: 1, Bytes: out.Bytes}, out)
	require.Equal(t, "1009 2000", stored(t, e))
}

// The machine may lose power in the middle of a collection, with any part of what was not
// synced. What is there then is what would be there without the collection, and another
// one removes the rest.
func TestCollectSurvivesPowerCuts(t *testing.T) {
	const keys, versions = 4, 40
	random := rand.New(rand.NewPCG(1, 2))
	fs := vfs.NewCrashableMem()
	e := openEngine(t, fs)
	for v := range versions {
		for k := range keys {
			line := fmt.Sprintf("put k%d v%d", k, v)
			if k == 0 && v == versions-1 {
				line = "del k0"
			}
			write(t, e, shard.Revision(100+v*keys+k), line)
		}
	}
	require.NoError(t, e.Sync())
	const compacted = 1000
	read := func(e *engine.Engine) []*mvccpb.KeyValue {
		f, err := Fetch(e.NewReader(), shard.Everything(), compacted, listing.FetchOptions{})
		require.NoError(t, err)
		return f.KVs
	}
	want := read(e)
	require.Len(t, want, keys-1)
	collect := func(e *engine.Engine, limits CollectLimits, after func()) {
		for from, more := []byte(nil), true; more; more = from != nil {
			b := e.NewBatch()
			out, err := Collect(e.NewReader(), b, shard.Everything(), 0, compacted, from, limits)
			require.NoError(t, err)
			require.NoError(t, e.Commit(b))
			require.NoError(t, b.Close())
			from = out.Next
			after()
		}
	}
	collect(e, CollectLimits{Drops: 3, Singles: 2}, func() {
		switch random.IntN(3) {
		case 0:
			require.NoError(t, e.Sync())
		case 1:
			require.NoError(t, e.Sync())
		}
		cut := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random})
		left := openEngine(t, cut)
		require.Equal(t, want, read(left))
		collect(left, CollectLimits{}, func() {})
		require.Equal(t, want, read(left))
		it, err := left.NewReader().NewIter(nil)
		require.NoError(t, err)
		count := 0
		for it.First(); it.Valid(); it.Next() {
			count++
		}
		require.NoError(t, it.Close())
		require.Equal(t, keys-1, count)
		require.NoError(t, left.Close())
	})
	require.NoError(t, e.Close())
}
