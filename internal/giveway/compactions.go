package giveway

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// pieceTime is the least work after which a compaction rests. Pebble reports progress after every 128 keys that
	// it keeps, which usually takes less than this. It does not report keys that it drops.
	pieceTime = 200 * time.Microsecond
	// compactionRestMax bounds a compaction's rest. It is longer than a flush's, because requests wait for the memory
	// that a flush frees.
	compactionRestMax = 10 * time.Millisecond
)

// Compactions schedules the compactions of one store. It runs as many as the store allows; the store allows more the
// further it falls behind. While only one is allowed, a compaction rests three times as long as it worked. Once more
// are allowed, none rests: data arrives faster than resting compactions clear it, and writes would eventually stall.
// Rests are measured by time and not by bytes written (as in FS), because a compaction that drops most of what it
// reads works for a long time before it has filled a piece of a table.
//
// The zero value is ready for one store. Its invariants:
//
//  1. No more compactions run than the store allowed when the last one began.
//  2. A store that waits for a compaction gets one as soon as it is allowed one more. It asks only once: if it is
//     refused, then another compaction is running, and when that one ends the store is offered its turn.
//  3. After Unregister nothing of the store is called, and running compactions no longer rest, so that closing the
//     store is not delayed.
type Compactions struct {
	db     pebble.DBForCompaction
	offers sync.WaitGroup

	mu struct {
		sync.Mutex
		running  int
		closed   bool
		offering bool // a goroutine is offering the store to run more
		again    bool // that goroutine must look once more: more may be allowed since it last looked
	}
}

var _ pebble.CompactionScheduler = (*Compactions)(nil)

// Register implements pebble.CompactionScheduler.
func (c *Compactions) Register(_ int, db pebble.DBForCompaction) { c.db = db }

// Unregister implements pebble.CompactionScheduler.
func (c *Compactions) Unregister() {
	c.mu.Lock()
	c.mu.closed = true
	c.mu.Unlock()
	c.offers.Wait()
}

// TrySchedule implements pebble.CompactionScheduler.
func (c *Compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if !c.take() {
		return false, nil
	}
	return true, &compaction{all: c}
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler.
func (c *Compactions) UpdateGetAllowedWithoutPermission() { c.offer() }

// take counts one more compaction as running, if that is allowed.
func (c *Compactions) take() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed || c.mu.running >= c.db.GetAllowedWithoutPermission() {
		return false
	}
	c.mu.running++
	return true
}

func (c *Compactions) giveBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.running--
}

// offer tells the store to run the compactions it waits for. It does not block: the store calls it with its lock
// held, and needs that lock to start a compaction.
func (c *Compactions) offer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return
	}
	c.mu.again = true
	if !c.mu.offering {
		c.mu.offering = true
		c.offers.Go(func() {
			for c.goOnOffering() {
				c.offerAll()
			}
		})
	}
}

func (c *Compactions) goOnOffering() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.offering = c.mu.again && !c.mu.closed
	c.mu.again = false
	return c.mu.offering
}

// offerAll starts as many compactions as the store wants and is allowed. It calls take only when the store is
// waiting. If the store then does not want the compaction, it asks again: while take counted that one as running, a
// TrySchedule may have been refused, and that one has to be made up for.
func (c *Compactions) offerAll() {
	for {
		if waiting, _ := c.db.GetWaitingCompaction(); !waiting || !c.take() {
			return
		}
		if !c.db.Schedule(&compaction{all: c}) {
			c.giveBack()
		}
	}
}

func (c *Compactions) hurry() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.closed || c.db.GetAllowedWithoutPermission() > 1
}

// compaction is one running compaction.
type compaction struct {
	all   *Compactions
	began time.Time // when it started, or last stopped resting
}

// Started implements pebble.CompactionGrantHandle.
func (c *compaction) Started() { c.began = time.Now() }

// MeasureCPU implements pebble.CompactionGrantHandle.
func (c *compaction) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle. The compacting goroutine itself calls it.
func (c *compaction) CumulativeStats(pebble.CompactionGrantHandleStats) {
	worked := time.Since(c.began)
	if worked < pieceTime {
		return
	}
	if c.all.hurry() {
		rest(0)
	} else {
		rest(min(restTimes*worked, compactionRestMax))
	}
	c.began = time.Now()
}

// Done implements pebble.CompactionGrantHandle.
func (c *compaction) Done() {
	c.all.giveBack()
	c.all.offer()
}
