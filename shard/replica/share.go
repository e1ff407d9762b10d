package replica

import (
	"runtime/metrics"
	"slices"
	"time"
)

const (
	// stepTime is how much work a step is meant to be. Whoever else needs the processor
	// waits no longer for it, and writes of the whole node wait for each other at the end
	// of a commit, so a put can be held up by as much.
	stepTime = 500 * time.Microsecond
	// shareMin of a processor is left to the garbage while there is anything else to do:
	// versions go several times faster in it than a busy node makes them, and ten million go
	// in three minutes. It is little because the store's flushes and compactions of what is
	// removed take twice as much again. shareMax is taken when nobody else wants it.
	shareMin, shareMax = 0.025, 0.5
	// pressed is how long one of ten goroutines that could run waits for a processor when
	// the node has enough to do, and overslept how late a timer is when others on the
	// machine have: more than an idle machine needs to wake up.
	pressed, overslept = 100 * time.Microsecond, 4 * time.Millisecond
	// hurried is by how many times a step takes longer than its work when it had to wait in
	// it: for the disk, the commits of others, or a processor.
	hurried = 8
	// Versions that a step looks at: as many as its time turns out to be enough for.
	stepVersionsMin, stepVersionsMax = 300, 4000
	// costFirst is what a version is taken to cost at first; it settles in a few steps.
	costFirst = time.Microsecond
)

// share is how much of a processor the collector takes: it backs off fast when there is
// other work or a sign that others wait, and comes back slowly.
type share struct {
	part float64 // of one processor
	cost float64 // nanoseconds of work for a version
	// waited tells how long goroutines had to wait for a processor since it was last asked.
	waited func() time.Duration
	// writes counts the writes that were applied, of all shards.
	writes  func() uint64
	written uint64 // when it was last asked
}

func newShare(waited func() time.Duration, writes func() uint64) *share {
	return &share{part: shareMin, cost: float64(costFirst), waited: waited, writes: writes}
}

// versions is how many the next step is to look at.
func (s *share) versions() int {
	return min(max(int(float64(stepTime)/s.cost), stepVersionsMin), stepVersionsMax)
}

// rest learns from a step and returns how long to leave the processor to others.
func (s *share) rest(versions int, took time.Duration) time.Duration {
	if versions > stepVersionsMin/2 { // fewer: mostly what every step costs
		// The least that a version took is what it costs; whatever is more was waiting, unless
		// it is so time and again.
		seen := float64(took) / float64(versions)
		s.cost = min(seen, s.cost+(min(seen, 2*s.cost)-s.cost)/32)
	}
	work := s.cost * float64(versions)
	if float64(took) > hurried*max(work, float64(stepTime)) {
		s.backOff()
	}
	return s.after(time.Duration(max(work, float64(stepTime)/4)))
}

// after is how long to leave the processor to others after some work.
func (s *share) after(work time.Duration) time.Duration {
	return time.Duration(float64(work) * (1/s.part - 1))
}

// rested learns from the rest: by how much it was too long, what others waited, and whether
// there was anything to write.
func (s *share) rested(late time.Duration) {
	waited, before := s.waited(), s.written
	s.written = s.writes()
	if late > overslept || waited > pressed || s.written != before {
		s.backOff()
	} else {
		s.part = min(s.part*1.1, shareMax)
	}
}

func (s *share) backOff() { s.part = max(s.part/2, shareMin) }

// waits tells how long goroutines of this process had to wait for a processor.
type waits struct {
	sample []metrics.Sample
	before []uint64 // counts when it was last asked
}

func newWaits() *waits {
	w := &waits{sample: []metrics.Sample{{Name: "/sched/latencies:seconds"}}}
	w.since()
	return w
}

// since returns the wait that one of ten has exceeded since it was last asked.
func (w *waits) since() time.Duration {
	metrics.Read(w.sample)
	h := w.sample[0].Value.Float64Histogram()
	if w.before == nil {
		w.before = slices.Clone(h.Counts)
		return 0
	}
	var all uint64
	for i, n := range h.Counts {
		all += n - w.before[i]
	}
	longer, at := uint64(0), len(h.Counts)-1
	for at > 0 && longer+h.Counts[at]-w.before[at] <= all/10 {
		longer += h.Counts[at] - w.before[at]
		at--
	}
	copy(w.before, h.Counts)
	return time.Duration(max(h.Buckets[at], 0) * float64(time.Second))
}
