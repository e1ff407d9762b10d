package giveway

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/bubble"
)

// database is a store as the scheduler sees it: how many compactions it wants and how many it allows.
type database struct {
	allowed atomic.Int32

	mu      sync.Mutex // held while the store asks for a compaction, as in Pebble
	wants   int
	waiting bool
	runs    []pebble.CompactionGrantHandle
	most    int
	refuses int // how many offers to refuse although it was waiting
}

func (d *database) GetAllowedWithoutPermission() int { return int(d.allowed.Load()) }

func (d *database) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting = d.waiting && d.wants > 0
	return d.waiting, pebble.WaitingCompaction{}
}

func (d *database) Schedule(h pebble.CompactionGrantHandle) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuses > 0 {
		d.refuses--
		return false
	}
	if d.waiting = d.waiting && d.wants > 0; !d.waiting {
		return false
	}
	d.runLocked(h)
	return true
}

func (d *database) runLocked(h pebble.CompactionGrantHandle) {
	d.wants--
	h.Started()
	d.runs = append(d.runs, h)
	d.most = max(d.most, len(d.runs))
}

// want asks for n more compactions. Like Pebble, it does not ask again while the scheduler knows that it is waiting.
func (d *database) want(c *Compactions, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wants += n
	for !d.waiting && d.wants > 0 {
		ok, h := c.TrySchedule()
		if !ok {
			d.waiting = true
			return
		}
		d.runLocked(h)
	}
}

func (d *database) allow(c *Compactions, n int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.allowed.Store(n)
	c.UpdateGetAllowedWithoutPermission()
}

func (d *database) running() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.runs)
}

// end ends the oldest running compaction.
func (d *database) end() {
	d.mu.Lock()
	h := d.runs[0]
	d.runs = d.runs[1:]
	d.mu.Unlock()
	h.Done()
}

func TestAsManyCompactionsRunAsAreAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, c := &database{}, &Compactions{}
		d.allowed.Store(1)
		c.Register(2, d)
		d.want(c, 5)
		require.Equal(t, 1, d.running())
		d.allow(c, 2)
		synctest.Wait()
		require.Equal(t, 2, d.running(), "the store is not offered what it was allowed")
		d.allow(c, 1)
		d.end()
		synctest.Wait()
		require.Equal(t, 1, d.running())
		d.end()
		synctest.Wait()
		require.Equal(t, 1, d.running(), "the store is not offered one when one has ended")
		d.mu.Lock()
		d.refuses = 1
		d.mu.Unlock()
		d.end()
		synctest.Wait()
		require.Equal(t, 1, d.running(), "an offer that was not wanted was the last")
		c.Unregister()
		d.end()
		synctest.Wait()
		require.Zero(t, d.running())
		d.want(c, 1)
		d.allow(c, 2)
		synctest.Wait()
		require.Zero(t, d.running(), "a closed store is offered a compaction")
		require.Equal(t, 2, d.most)
	})
}

// However requests coincide, no more compactions run than are allowed, and in the end all that were wanted have run.
func TestNoWantedCompactionIsForgotten(t *testing.T) {
	d, c := &database{}, &Compactions{}
	d.allowed.Store(2)
	c.Register(2, d)
	const each, askers = 500, 4
	var work sync.WaitGroup
	for range askers {
		work.Go(func() {
			for range each {
				d.want(c, 1)
			}
		})
	}
	for ended := 0; ended < each*askers; {
		if d.running() > 0 {
			d.end()
			ended++
		}
	}
	work.Wait()
	c.Unregister()
	require.LessOrEqual(t, d.most, 2)
	require.Zero(t, d.running())
}

// A compaction rests three times as long as it worked; not after every few keys, and never for long. It does not rest
// when more compactions are allowed, which means that the store is behind, or when the store is closed.
func TestACompactionRestsByWhatItWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, c := &database{}, &Compactions{}
		d.allowed.Store(1)
		c.Register(2, d)
		d.want(c, 1)
		h := d.runs[0]
		rests := func(worked time.Duration) time.Duration {
			bubble.Pass(worked)
			began := time.Now()
			h.CumulativeStats(pebble.CompactionGrantHandleStats{})
			return time.Since(began)
		}
		require.Zero(t, rests(pieceTime/2))
		require.Equal(t, restTimes*pieceTime, rests(pieceTime/2), "what it worked before is forgotten")
		require.Equal(t, 3*time.Millisecond, rests(time.Millisecond))
		require.Equal(t, compactionRestMax, rests(time.Hour))
		d.allowed.Store(2)
		require.Zero(t, rests(time.Millisecond))
		d.allowed.Store(1)
		require.NotZero(t, rests(time.Millisecond))
		c.Unregister()
		require.Zero(t, rests(time.Millisecond))
		d.end()
	})
}

// Pebble asks the scheduler, reports its progress, and writes with the category that FS expects.
func TestPebbleCompactsByTheScheduler(t *testing.T) {
	turns := 0
	c := &Compactions{}
	options := &pebble.Options{FS: counting{vfs.NewMem(), &turns}, Logger: pebble.DefaultLogger}
	options.Experimental.CompactionScheduler = c
	db, err := pebble.Open("", options)
	require.NoError(t, err)
	value := make([]byte, 1000)
	for round := range 2 {
		for i := range 1000 {
			value[i] = byte(i + round) // hard to compress
			require.NoError(t, db.Set([]byte{byte(i), byte(i >> 8)}, value, pebble.NoSync))
		}
		require.NoError(t, db.Flush())
	}
	turns = 0
	require.NoError(t, db.Compact(t.Context(), []byte{0}, []byte{255, 255}, false))
	require.Zero(t, turns, "a compaction rests for the pieces of its tables too")
	require.Positive(t, db.Metrics().Compact.Count)
	require.NoError(t, db.Close())
}
