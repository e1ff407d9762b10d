package replica

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tempoWindow is how long the load is looked at before batches start at other distances:
	// long enough to have several in it at the longest.
	tempoWindow = 500 * time.Millisecond
	// spacingMin and spacingMax are the distances between the moments at which batches start.
	// More than the longest leaves processors free: a write on a machine that has none to spare
	// takes some 40 ms, and when all wait for the same moment nobody has anything to do.
	spacingMin, spacingMax = 10 * time.Millisecond, 20 * time.Millisecond
	// spacingLong is the longest distance between two batches of a shard as long as they have less than
	// smallBatch commands: then nearly all that a write costs is its batch, and it takes longer than
	// this among a thousand others.
	spacingLong = 160 * time.Millisecond
	smallBatch  = 16
	// roundMin and roundMax are the distances between the moments at which rounds of reads start. A
	// read takes half as long as a write there.
	roundMin, roundMax = 5 * time.Millisecond, 10 * time.Millisecond
	// Processors are short when more than processorsShort of their time is in use, and not any
	// more below processorsFree. The least distance helps against that. When more than processorsGone is in use even
	// so, they are what all wait for, and longer distances make everybody's wait shorter; otherwise they make it longer.
	processorsShort, processorsFree = 0.9, 0.8
	processorsGone                  = 0.93
	// worthwhile is how many commands a second a node proposes at least when its batches are
	// worth saving.
	worthwhile = 500
	// A distance at which a node proposes less than slower times what it did without, for slowWindows
	// in a row, is given up, and none is tried for giveUpMin windows, then for longer each time. In one alone it may be
	// that clients stood still. What it did without is forgotten in rateMemory windows: others may come and go.
	slower               = 0.75
	slowWindows          = 2
	giveUpMin, giveUpMax = 4, 64
	rateMemory           = 32
	// A long distance that left processors free is not tried again for enough windows: then
	// nearly all clients wait for the next moment.
	enough = 16
)

// distances are the bounds of those of a tempo.
type distances struct{ least, most, long time.Duration }

// band is how busy processors are while a distance stays as it is: it is too long below, and too short above.
func (d distances) band(spacing time.Duration) (low, high float64) {
	switch {
	case spacing == 0:
		return 0, processorsShort
	case d.least < spacing && spacing <= d.most:
		return processorsShort, processorsGone
	default:
		return processorsFree, processorsGone
	}
}

func batchDistances() distances { return distances{spacingMin, spacingMax, spacingLong} }

func roundDistances() distances { return distances{roundMin, roundMax, roundMax} }

// tempo decides when batches, or rounds of reads, start: at once, as long as there are processors for it. When
// they are short, a batch costs more of them than it saves time, because what waits for a
// processor elsewhere would have been company. Then all shards of a node start theirs at
// common moments, so that they are fewer, larger, and share writes and wake-ups. The moments
// are those of the wall clock, so nodes share them too, if their clocks agree; nothing
// rests on it, and no shard waits for another one.
//
// With few clients, waiting has no company to gain: they only ask less. So it watches how
// much is asked, and gives a distance up at which that is less.
type tempo struct {
	// busy returns which part of the machine's processor time was in use since it was last asked.
	busy  func() float64
	moved func(spacing time.Duration) // is told of another one; may be nil
	may   distances
	began time.Time

	commands atomic.Uint64 // in batches that were taken
	batches  atomic.Uint64 // that were taken
	spacing  atomic.Int64  // nanoseconds between batches of a shard; 0: they start at once
	due      atomic.Int64  // nanoseconds after began: when to look at the load again

	mu struct {
		sync.Mutex
		judged   time.Time
		commands uint64  // when judged
		batches  uint64  // when judged
		free     float64 // commands a second, when batches started at once
		slow     int     // windows in a row in which it was less by far
		missed   float64 // free, when a distance was last given up, until it is known whether it was to blame
		pause    int     // windows until a distance may be tried
		giveUp   int     // the next pause
	}
}

func newTempo(busy func() float64, may distances) *tempo {
	t := &tempo{busy: busy, may: may, began: time.Now()}
	t.mu.judged, t.mu.giveUp = t.began, giveUpMin
	return t
}

// wait returns how long a batch that could start now should wait, of a shard whose last one
// started at the given time.
func (t *tempo) wait(now, last time.Time) time.Duration {
	if at := int64(now.Sub(t.began)); at >= t.due.Load() && t.mu.TryLock() {
		t.judge(now)
		t.due.Store(at + int64(tempoWindow))
		t.mu.Unlock()
	}
	spacing := time.Duration(t.spacing.Load())
	if spacing == 0 {
		return 0
	}
	// When batches are small, the moments of all shards are two: what they share then is most of what they cost.
	moments := max(min(spacing, t.may.most), spacing/2)
	after := max(now.UnixNano(), last.Add(spacing-moments).UnixNano()) // the last one has started somewhat behind its moment
	return time.Duration(after - after%int64(moments) + int64(moments) - now.UnixNano())
}

// took counts the commands of a batch, or the reads of a round.
func (t *tempo) took(n int) {
	t.commands.Add(uint64(n))
	t.batches.Add(1)
}

// judge sets the distance by what happened since it was last called. mu is held.
func (t *tempo) judge(now time.Time) {
	commands, batches, busy := t.commands.Load(), t.batches.Load(), t.busy()
	window := max(now.Sub(t.mu.judged), tempoWindow)
	rate := float64(commands-t.mu.commands) / window.Seconds()
	longest := t.may.most
	if commands-t.mu.commands < smallBatch*(batches-t.mu.batches) {
		longest = t.may.long
	}
	t.mu.commands, t.mu.batches, t.mu.judged = commands, batches, now
	spacing := time.Duration(t.spacing.Load())
	if spacing > 0 && rate < slower*t.mu.free {
		t.mu.slow += int(window / tempoWindow)
	} else {
		t.mu.slow = 0
	}
	if spacing == 0 {
		t.mu.free = rate
		if t.mu.missed > 0 && rate >= slower*t.mu.missed {
			t.mu.pause, t.mu.giveUp = t.mu.giveUp, min(2*t.mu.giveUp, giveUpMax)
		}
		t.mu.missed = 0
	} else {
		t.mu.free += (rate - t.mu.free) / rateMemory
	}
	low, high := t.may.band(spacing)
	switch {
	case t.mu.slow >= slowWindows:
		spacing, t.mu.missed, t.mu.slow = 0, t.mu.free, 0
	case t.mu.slow > 0:
	case rate < worthwhile:
		spacing = 0
		t.mu.pause = max(t.mu.pause, 1) // the next window is the first whole one
	case busy < low:
		if spacing > t.may.most {
			t.mu.pause = max(t.mu.pause, enough)
		}
		if spacing /= 2; spacing < t.may.least {
			spacing = 0
		}
	case spacing > longest:
		spacing /= 2
	case busy < high:
	case t.mu.pause > 0:
		t.mu.pause--
	case spacing < longest:
		spacing = max(2*spacing, t.may.least)
	default:
		t.mu.giveUp = giveUpMin
	}
	if was := t.spacing.Swap(int64(spacing)); t.moved != nil && was != int64(spacing) {
		t.moved(spacing)
	}
}
