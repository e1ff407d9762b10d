package giveway

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// pieceTime is the least work after which a compaction rests. Pebble tells of each 128 keys that it
	// keeps, which is less; what it drops in between it does not tell.
	pieceTime = 200 * time.Microsecond
	// compactionRestMax bounds its rests. It is more than a flush's, whose memory others wait for.
	compactionRestMax = 10 * time.Millisecond
)

// Compactions is the scheduler of one store's compactions. It has as many run as the store allows by its
// backlog, and has them rest, three times as long as they worked, unless that is more than one: then more comes
// than they bring away, and writes would stall in the end. What is written does not say enough for that:
// a compaction that drops most of what it reads works for long before it has a piece of a table.
//
// The zero value is ready for one store. Its invariants:
//
//  1. No more run than the store allowed when the last was begun.
//  2. A store that waits for a compaction gets one as soon as it is allowed one more. It asks once: if it is
//     refused, one runs, and at its end the store is offered one.
//  3. After Unregister nothing of the store is called, and what runs does not rest, so that closing takes no longer
//     than it must.
type Compactions struct {
	db     pebble.DBForCompaction
	offers sync.WaitGroup

	mu struct {
		sync.Mutex
		running  int
		closed   bool
		offering bool // a goroutine offers the store to run more
		again    bool // it has to look once more: more may be allowed since it did
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

// take counts one more as running, if that is allowed.
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

// offer has the store run what it waits for. It does not block: the store calls with its lock held, and
// needs that lock to begin one.
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

// offerAll has the store run as many as it wants and is allowed. It takes only when the store waits, and asks again
// after one that the store did not want: a TrySchedule that was refused because of it has to be made good.
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

// compaction is one that runs.
type compaction struct {
	all   *Compactions
	began time.Time // to work since it last rested
}

// Started implements pebble.CompactionGrantHandle.
func (c *compaction) Started() { c.began = time.Now() }

// MeasureCPU implements pebble.CompactionGrantHandle.
func (c *compaction) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle. It is called by the goroutine that compacts.
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
