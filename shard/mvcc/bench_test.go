package mvcc

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// benchKeys is how many keys the store of the benchmarks holds, in tables.
const benchKeys = 100_000

func benchKey(i int) []byte { return fmt.Appendf(nil, "/registry/pods/namespace/%08d", i) }

// benchStore holds benchKeys keys of two versions, in tables.
func benchStore(b *testing.B) *engine.Engine {
	e, err := engine.Open(storeDir, engine.Options{FS: vfs.NewMem()})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, e.Close()) })
	value := make([]byte, 256)
	require.NoError(b, e.Replace(shard.Everything(), func(w *engine.SSTWriter) error {
		for i := range benchKeys {
			for _, h := range []Header{{Create: 10, Mod: 20, Version: 2}, {Create: 10, Mod: 10, Version: 1}} {
				if err := w.Put(benchKey(i), h.Mod, append(appendHeader(nil, h), value...)); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	return e
}

// benchPuts does puts in updates of 64, which is a busy shard's; each op is one put.
func benchPuts(b *testing.B, e *engine.Engine, cache *HeaderCache, key func(i int) []byte) {
	value := make([]byte, 256)
	keys := make([][]byte, 1<<14)
	for i := range keys {
		keys[i] = key(i)
	}
	rev := shard.Revision(1000)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; {
		batch := e.NewBatch()
		w := NewWriter(e.NewReader(), cache)
		for range 64 {
			rev++
			w.Begin(rev)
			k := keys[i%len(keys)]
			found, err := w.Find(k)
			if err == nil {
				err = w.Put(k, value, 0, found)
			}
			require.NoError(b, err)
			i++
		}
		require.NoError(b, w.Store(batch))
		require.NoError(b, e.Commit(batch))
		w.Finish()
		require.NoError(b, batch.Close())
	}
}

func BenchmarkPut(b *testing.B) {
	b.Run("header cached", func(b *testing.B) {
		benchPuts(b, benchStore(b), NewHeaderCache(NewHeaderBudget(0, 1<<15, 0)), benchKey)
	})
	b.Run("header not cached", func(b *testing.B) {
		benchPuts(b, benchStore(b), NewHeaderCache(NewHeaderBudget(0, 1, 0)), func(i int) []byte { return benchKey(i * 7919 % benchKeys) })
	})
	b.Run("new key", func(b *testing.B) {
		benchPuts(b, benchStore(b), NewHeaderCache(NewHeaderBudget(0, 1, 0)), func(i int) []byte { return benchKey(benchKeys + i) })
	})
}

func BenchmarkHeader(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
	}{{"hit", 1 << 11}, {"miss", 1}} {
		b.Run(c.name, func(b *testing.B) {
			e := benchStore(b)
			batch := e.NewBatch()
			defer batch.Close()
			w := NewWriter(e.NewReader(), NewHeaderCache(NewHeaderBudget(0, c.size, 0)))
			defer w.Discard()
			keys := make([][]byte, 1<<10)
			for i := range keys {
				keys[i] = benchKey(i * 7919 % benchKeys)
				_, _, err := w.Header(keys[i])
				require.NoError(b, err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if _, exists, err := w.Header(keys[i%len(keys)]); !exists || err != nil {
					b.Fatal(exists, err)
				}
			}
		})
	}
}

func BenchmarkFetch(b *testing.B) {
	e := benchStore(b)
	r := e.NewReader()
	span := shard.Span{Start: benchKey(5000), End: benchKey(6000)}
	for _, c := range []struct {
		name string
		span func(i int) shard.Span
		at   shard.Revision
		o    listing.FetchOptions
		want int64
	}{
		{"key", func(i int) shard.Span { return shard.PointSpan(benchKey(i * 7919 % benchKeys)) }, 0, listing.FetchOptions{}, 1},
		{"absent key", func(i int) shard.Span { return shard.PointSpan(benchKey(benchKeys + i)) }, 0, listing.FetchOptions{}, 0},
		{"1000 keys", func(int) shard.Span { return span }, 0, listing.FetchOptions{}, 1000},
		{"1000 keys at an old revision", func(int) shard.Span { return span }, 15, listing.FetchOptions{}, 1000},
		{"1000 keys only", func(int) shard.Span { return span }, 0, listing.FetchOptions{KeysOnly: true}, 1000},
		{"count 1000", func(int) shard.Span { return span }, 0, listing.FetchOptions{CountOnly: true}, 1000},
		{"count all", func(int) shard.Span { return shard.Everything() }, 0, listing.FetchOptions{CountOnly: true}, benchKeys},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				f, err := Fetch(r, c.span(i), c.at, c.o)
				if err != nil || f.Count != c.want {
					b.Fatal(f.Count, err)
				}
			}
		})
	}
}

func BenchmarkCollectNothing(b *testing.B) {
	e := benchStore(b)
	batch := e.NewBatch()
	defer batch.Close()
	b.ResetTimer()
	for range b.N { // of each key's two versions none is superseded at 15
		out, err := Collect(e.NewReader(), batch, shard.Everything(), 0, 15, nil, CollectLimits{})
		if err != nil || out.Dropped != 0 {
			b.Fatal(out, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchKeys, "ns/key")
}
