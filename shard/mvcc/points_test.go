package mvcc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// slowReader counts iterators, and waits before it makes one or fails to.
type slowReader struct {
	engine.Reader
	gate  *sync.WaitGroup
	iters *atomic.Int64
	err   error
}

func (r slowReader) NewIter(o *pebble.IterOptions) (*pebble.Iterator, error) {
	r.iters.Add(1)
	r.gate.Wait()
	if r.err != nil {
		return nil, r.err
	}
	return r.Reader.NewIter(o)
}

// pointStore is a store with keys 0 to n-1, each at revision 10, of which every third is written again at 20, and
// every fifth deleted. The first versions are in a table, the others in memory.
func pointStore(t *testing.T, n int) *engine.Engine {
	t.Helper()
	e := openEngine(t, vfs.NewMem())
	w := NewWriter(e.NewReader(), NewHeaderCache(NewHeaderBudget(0, 16, 0)))
	for _, rev := range []shard.Revision{10, 20} {
		batch := e.NewBatch()
		w.Begin(rev)
		for i := range n {
			key := fmt.Append(nil, i)
			found, err := w.Find(key)
			require.NoError(t, err)
			switch {
			case rev == 10 || i%3 == 0 && i%5 > 0:
				require.NoError(t, w.Put(key, fmt.Append(nil, i, " at ", rev), 0, found))
			case i%5 == 0:
				require.NoError(t, w.Delete(key))
			}
		}
		require.NoError(t, w.Store(batch))
		require.NoError(t, e.Commit(batch))
		w.Finish()
		require.NoError(t, batch.Close())
		if rev == 10 {
			require.NoError(t, e.Sync()) // into a table
		}
	}
	return e
}

// Many reads at a time find what each would find alone.
func TestPointsTogether(t *testing.T) {
	const keys, readers, reads = 100, 200, 50
	e := pointStore(t, keys)
	defer func() { require.NoError(t, e.Close()) }()
	rows := NewRowReader(NewRows(1))
	rows.points.readersMax = 2
	var wg sync.WaitGroup
	for i := range readers {
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		wg.Go(func() {
			for range reads {
				k, at := rng.IntN(keys+10), []shard.Revision{9, 10, 15, 20, 30}[rng.IntN(5)]
				want := ""
				switch {
				case k >= keys || at < 10 || at >= 20 && k%5 == 0:
				case at < 20 || k%3 > 0:
					want = fmt.Sprint(k, " at 10")
				default:
					want = fmt.Sprint(k, " at 20")
				}
				f, err := rows.Fetch(e.NewReader(), shard.PointSpan(fmt.Append(nil, k)), 1, at, listing.FetchOptions{})
				got := ""
				if len(f.KVs) > 0 {
					got = string(f.KVs[0].Value)
				}
				if err != nil || got != want {
					t.Errorf("key %d at %d: %q, %v instead of %q", k, at, got, err, want)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, rows.points.mu.readers)
	require.Empty(t, rows.points.mu.waiting)
}

// Reads begin at once as long as few are at work (3). The others share iterators that are made after they have begun
// (1), at most pointsMax each, and an error is told to all that it concerns.
func TestPointsWait(t *testing.T) {
	e := pointStore(t, 100)
	defer func() { require.NoError(t, e.Close()) }()
	synctest.Test(t, func(t *testing.T) {
		for _, fails := range []error{nil, errors.New("no iterator")} {
			rows := NewRowReader(NewRows(1))
			rows.points.readersMax = 2
			var gate sync.WaitGroup
			gate.Add(1)
			var iters, done, failed atomic.Int64
			for i := range 2 + 2*pointsMax {
				go func() {
					r := slowReader{Reader: e.NewReader(), gate: &gate, iters: &iters, err: fails}
					if _, err := rows.Fetch(r, shard.PointSpan(fmt.Append(nil, i)), 1, 20, listing.FetchOptions{}); err != nil {
						failed.Add(1)
					}
					done.Add(1)
				}()
				synctest.Wait()
			}
			require.EqualValues(t, 2, iters.Load(), "the others wait")
			require.Zero(t, done.Load())
			gate.Done()
			synctest.Wait()
			require.EqualValues(t, 2+2*pointsMax, done.Load())
			require.LessOrEqual(t, iters.Load(), int64(2+3), "two are full, and the last two may come beside each other")
			if fails == nil {
				require.Zero(t, failed.Load())
			} else {
				require.Equal(t, done.Load(), failed.Load())
			}
			require.Zero(t, rows.points.mu.readers)
		}
	})
}
