package mvcc

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

var coldKeysFlag = flag.Int("cold-keys", 1_000_000, "of the store of BenchmarkCold")

// coldStore is on disk and has keys in a random order, as they are written by a load, and then some of
// them again, so that there are tables in sublevels of L0 and below.
func coldStore(b *testing.B, n int) *engine.Engine {
	e, err := engine.Open(b.TempDir(), engine.Options{CacheBytes: 256 << 20})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, e.Close()) })
	rng := rand.New(rand.NewPCG(1, 2))
	c := NewHeaderCache(NewHeaderBudget(0, n+1, 0))
	w, rev, value := NewWriter(e.NewReader(), c), shard.FirstRevision, make([]byte, 256)
	for i := range value {
		value[i] = "0123456789abcdef"[rng.IntN(16)]
	}
	put := func(i int) {
		rev += 1000
		w.Begin(rev)
		key := benchKey(i)
		found := c.get(key)
		if found == nil {
			found = c.add(string(key), Header{})
		}
		require.NoError(b, w.Put(key, value, 0, Found{Header: found.header, Exists: exists(found.header), cached: found}))
		if w.Size() < 17<<20 {
			return
		}
		batch := e.NewBatchOf(w.BatchBytes())
		require.NoError(b, w.Store(batch))
		require.NoError(b, e.Commit(batch))
		require.NoError(b, batch.Close())
		w.Finish()
	}
	for _, i := range rng.Perm(n) {
		put(i)
	}
	for range n / 3 {
		put(rng.IntN(n))
	}
	batch := e.NewBatch()
	require.NoError(b, w.Store(batch))
	require.NoError(b, e.Commit(batch))
	require.NoError(b, batch.Close())
	w.Finish()
	return e
}

// BenchmarkCold looks for keys of a large store, 64 in each update, or gets them.
func BenchmarkCold(b *testing.B) {
	n := *coldKeysFlag
	e := coldStore(b, n)
	b.Log(e.Metrics().String())
	for _, c := range []struct {
		name   string
		packed int
		key    func(i int) []byte
		want   bool
	}{
		{"miss", 0, benchKey, true},
		{"absent", 0, func(i int) []byte { return fmt.Append(benchKey(i), "x") }, false},
		{"packed", 100 * n, benchKey, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := NewWriter(e.NewReader(), NewHeaderCache(NewHeaderBudget(0, 1, c.packed)))
			defer w.Discard()
			if c.packed > 0 {
				for i := range n {
					w.cache.add(string(c.key(i)), Header{Mod: 1, Create: 1, Version: 1})
				}
			}
			rng := rand.New(rand.NewPCG(3, 4))
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if _, exists, err := w.Header(c.key(rng.IntN(n))); exists != c.want || err != nil {
					b.Fatal(exists, err)
				}
				if i%64 == 63 {
					w.Pause()
				}
			}
		})
	}
	b.Run("get", func(b *testing.B) {
		r, rng := NewRowReader(NewRows(1)), rand.New(rand.NewPCG(5, 6))
		b.ReportAllocs()
		for range b.N {
			f, err := r.Fetch(e.NewReader(), shard.PointSpan(benchKey(rng.IntN(n))), 1, latest, listing.FetchOptions{})
			if err != nil || f.Count != 1 {
				b.Fatal(f.Count, err)
			}
		}
	})
}
