package replica

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tempoWindow is how long the load is observed before the spacing of batches changes: long enough for two batches
	// at the longest spacing.
	tempoWindow = 250 * time.Millisecond
	// spacingMin and spacingMax bound the time between common ticks, the moments at which batches start. A longer
	// spacing leaves CPUs idle: on a machine without spare CPU a write takes some 40 ms, and if all wait for the same
	// tick, nobody has anything to do.
	spacingMin, spacingMax = 10 * time.Millisecond, 20 * time.Millisecond
	// spacingSmall bounds it while batches have fewer than smallBatch commands. Then nearly all of a write's cost is its
	// batch, so it is worth waiting until all commands are there, which is when the tick comes (muster). How long that
	// takes depends on the machine; on a fast one it is half of this. But only where at least manyBatches start at
	// each tick: fewer cost so little in all that a longer wait would save nothing.
	spacingSmall = 100 * time.Millisecond
	smallBatch   = 16
	manyBatches  = 16
	// roundMin and roundMax bound the time between the ticks at which rounds of reads start. On such a machine a read
	// takes half as long as a write.
	roundMin, roundMax = 5 * time.Millisecond, 10 * time.Millisecond
	// CPUs become short when more than processorsShort of their time is in use, and stop being short below
	// processorsFree. While they are short, the smallest spacing helps. If even so more than processorsGone is in use, CPUs are what
	// everyone waits for, and a longer spacing shortens everybody's wait. Otherwise it would lengthen it. With a spacing
	// for small batches CPUs are idle before each tick, and it is too long only below processorsIdle, and if the ticks are not early:
	// then everybody waits for something else, such as a slow fsync.
	processorsShort, processorsFree, processorsIdle = 0.9, 0.8, 0.65
	processorsGone                                  = 0.93
	// worthwhile is how many commands a second a node must propose for saving batches to be worth it.
	worthwhile = 500
	// A spacing is given up if, for slowWindows in a row, the node proposes less than slower times what it proposed
	// with the next shorter one. Then none longer is tried for giveUpMin windows, and for longer each time, unless so much
	// more is proposed that there must be more clients. A single slow window may only mean that clients paused.
	slower               = 0.75
	slowWindows          = 4
	giveUpMin, giveUpMax = 8, 128
	// A spacing that leaves CPUs idle is too long. If the node also proposed less than fewer times what it proposed with the
	// next shorter one, a pause follows likewise.
	fewer = 0.9
	// What was proposed with another spacing is forgotten within rateMemory windows, as clients come and go.
	rateMemory = 32
	// A long spacing that left CPUs idle is not tried again for enough windows: it meant that nearly all clients were
	// waiting for the next tick.
	enough = 32
)

// spacings are those that a tempo may choose, ascending.
type spacings []struct {
	apart time.Duration
	batch uint64 // it may be chosen while batches have fewer commands than this
}

func batchSpacings() spacings {
	return spacings{{spacingMin, math.MaxUint64}, {spacingMax, math.MaxUint64}, {spacingSmall, smallBatch}}
}

func roundSpacings() spacings {
	return spacings{{roundMin, math.MaxUint64}, {roundMax, math.MaxUint64}}
}

// longest returns the longest spacing for such batches, of which so many start together.
func (s spacings) longest(commands, batches, together uint64) (longest time.Duration) {
	for _, d := range s {
		if d.batch == math.MaxUint64 || commands < d.batch*batches && together >= manyBatches {
			longest = d.apart
		}
	}
	return longest
}

// above returns the next longer spacing, and below the next shorter one, or 0.
func (s spacings) above(spacing time.Duration) time.Duration {
	for _, d := range s {
		if d.apart > spacing {
			return d.apart
		}
	}
	return spacing
}

func (s spacings) below(spacing time.Duration) (below time.Duration) {
	for _, d := range s {
		if d.apart < spacing {
			below = d.apart
		}
	}
	return below
}

// band returns the range of CPU usage within which the spacing stays as it is. Below it the spacing is too long,
// above it too short.
func (s spacings) band(spacing time.Duration) (low, high float64) {
	switch {
	case spacing == 0:
		return 0, processorsShort
	case s.forSmall(spacing):
		return processorsIdle, processorsGone
	case spacing > s[0].apart:
		return processorsShort, processorsGone
	default:
		return processorsFree, processorsGone
	}
}

// forSmall reports whether a spacing is only for many small batches: longer than what none together may have.
func (s spacings) forSmall(spacing time.Duration) bool { return spacing > s.longest(0, 0, 0) }

// tempo decides when batches, or rounds of reads, start. While there is CPU to spare, they start at once. When there
// is none, starting early saves no time, because a command waits for a CPU elsewhere anyway, and it costs more,
// because the command could have shared a later batch. Then all shards of a node start their batches at common ticks,
// so that batches are fewer and larger and share disk writes and wake-ups. The ticks follow the wall clock, so nodes
// whose clocks agree share them too, unless there is a reason to have one earlier (muster). Correctness does not depend on that, and no
// shard waits for another one.
//
// With few clients waiting gains nothing, because no other commands arrive meanwhile; the clients only send less. So
// tempo watches how much is requested, and gives up a spacing that lowers it.
type tempo struct {
	// busy returns the share of the machine's CPU time in use since the last call.
	busy  func() float64
	moved func(spacing time.Duration) // is called with a new spacing; may be nil
	// early reports whether the common ticks since the last call came before they were due; nil: they never do.
	early func() bool
	may   spacings
	began time.Time

	commands atomic.Uint64 // in batches taken so far
	batches  atomic.Uint64 // taken so far
	spacing  atomic.Int64  // nanoseconds between batches of a shard; 0: batches start at once
	due      atomic.Int64  // nanoseconds after began: when to look at the load again

	mu struct {
		sync.Mutex
		judged   time.Time
		commands uint64                    // when last judged
		batches  uint64                    // when last judged
		rates    map[time.Duration]float64 // commands a second with each spacing that was tried
		slow     int                       // windows in a row in which the rate was much lower than with the next shorter spacing
		missed   float64                   // what that was when a spacing was last given up, until it is known whether the spacing was to blame
		without  float64                   // commands a second after the spacing that is paused was given up
		pause    int                       // windows until a longer spacing may be tried
		giveUp   int                       // the next pause
	}
}

func newTempo(busy func() float64, may spacings) *tempo {
	t := &tempo{busy: busy, may: may, began: time.Now()}
	t.mu.judged, t.mu.giveUp, t.mu.rates = t.began, giveUpMin, make(map[time.Duration]float64)
	return t
}

// interval returns the present time between two common ticks. 0: nothing waits for them.
func (t *tempo) interval(now time.Time) time.Duration {
	if at := int64(now.Sub(t.began)); at >= t.due.Load() && t.mu.TryLock() {
		t.judge(now)
		t.due.Store(at + int64(tempoWindow))
		t.mu.Unlock()
	}
	return time.Duration(t.spacing.Load())
}

// untilTick returns how long it is until the next common tick.
func untilTick(now time.Time, spacing time.Duration) time.Duration {
	if spacing == 0 {
		return 0
	}
	return spacing - time.Duration(now.UnixNano())%spacing
}

// took counts the commands of a batch, or the reads of a round.
func (t *tempo) took(n int) {
	t.commands.Add(uint64(n))
	t.batches.Add(1)
}

// judge sets the spacing by what happened since the last call. mu is held.
func (t *tempo) judge(now time.Time) {
	commands, batches, busy := t.commands.Load(), t.batches.Load(), t.busy()
	window := max(now.Sub(t.mu.judged), tempoWindow)
	rate := float64(commands-t.mu.commands) / window.Seconds()
	spacing := time.Duration(t.spacing.Load())
	together := (batches - t.mu.batches) * uint64(spacing) / uint64(window)
	longest := t.may.longest(commands-t.mu.commands, batches-t.mu.batches, together)
	t.mu.commands, t.mu.batches, t.mu.judged = commands, batches, now
	t.conclude(rate)
	shorter := t.remember(spacing, rate, int(window/tempoWindow))
	low, high := t.may.band(spacing)
	if early := t.early != nil && t.early(); early && t.may.forSmall(spacing) {
		low = 0
	}
	switch {
	case t.mu.slow >= slowWindows:
		spacing, t.mu.missed, t.mu.slow = t.may.below(spacing), shorter, 0
		if rate < worthwhile {
			spacing = 0
		}
	case busy < low:
		if t.may.forSmall(spacing) {
			t.mu.pause = max(t.mu.pause, enough)
		}
		if rate < fewer*shorter {
			t.mu.missed = shorter
		}
		spacing, t.mu.slow = t.may.below(spacing), 0
	case t.mu.slow > 0:
	case rate < worthwhile:
		spacing = 0
		t.mu.pause = max(t.mu.pause, 1) // the next window is the first whole one
	case spacing > longest:
		spacing = t.may.below(spacing)
	case busy < high:
	case t.mu.pause > 0:
		t.mu.pause--
	case spacing < longest:
		spacing = t.may.above(spacing)
	default:
		t.mu.giveUp = giveUpMin
	}
	if was := t.spacing.Swap(int64(spacing)); t.moved != nil && was != int64(spacing) {
		t.moved(spacing)
	}
}

// conclude decides whether the spacing that was given up last was to blame for what the node missed with it: then
// none longer is tried for a while. mu is held.
func (t *tempo) conclude(rate float64) {
	switch {
	case t.mu.missed == 0 && t.mu.without > 0 && slower*rate > t.mu.without: // there are more clients, or the machine is faster
		t.mu.pause, t.mu.giveUp, t.mu.without = 0, giveUpMin, 0
	case t.mu.missed == 0:
	case rate >= slower*t.mu.missed:
		t.mu.pause, t.mu.giveUp, t.mu.without = max(t.mu.pause, t.mu.giveUp), min(2*t.mu.giveUp, giveUpMax), rate
	default: // less is asked for, so the old rates say nothing
		clear(t.mu.rates)
	}
	t.mu.missed = 0
}

// remember notes the rate that a spacing had for some windows, and for how many it was slow. It returns the rate of the
// next shorter spacing, or 0 if that is not known. mu is held.
func (t *tempo) remember(spacing time.Duration, rate float64, windows int) (shorter float64) {
	for s, was := range t.mu.rates {
		t.mu.rates[s] += (rate - was) / rateMemory
	}
	t.mu.rates[spacing] = rate
	if spacing == 0 {
		return 0
	}
	shorter = t.mu.rates[t.may.below(spacing)]
	if rate < slower*shorter {
		t.mu.slow += windows
	} else {
		t.mu.slow = 0
	}
	return shorter
}
