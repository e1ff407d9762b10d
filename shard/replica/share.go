package replica

import (
	"runtime/metrics"
	"slices"
	"time"
)

const (
	// stepTime is how much work one step should be. Others who need the CPU wait at most this long for the collector.
	// So may a put: writes of the whole node wait for each other at the end of a commit.
	stepTime = 500 * time.Microsecond
	// shareMin of a CPU is left to garbage collection while there is anything else to do: about 20,000 versions a
	// second. It is no more because the store's flushes and compactions of what is removed take twice as much again.
	// shareMax is taken when nobody else wants it.
	shareMin, shareMax = 0.025, 0.5
	// shareLate is how much of a CPU the collector takes at most, whoever else wants it, when it does not keep up with
	// compactions. Otherwise a node under full load for hours would fill its disk with garbage.
	shareLate = 0.2
	// pressed and overslept are signs that CPUs are short. pressed is how long one in ten runnable goroutines waits
	// for a CPU when this node is busy. overslept is how late a timer fires when others on the machine are; an idle
	// machine needs less to wake up, even with the threads' timer slack.
	pressed, overslept = 100 * time.Microsecond, 4 * time.Millisecond
	// hurried: a step that takes this many times longer than its work had to wait, for the disk, for the commits of
	// others or for a CPU.
	hurried = 8
	// Bounds of the number of versions that a step looks at. In between, it is as many as fit into stepTime.
	stepVersionsMin, stepVersionsMax = 300, 4000
	// costFirst is the assumed cost of a version until it has been measured; that takes a few steps.
	costFirst = time.Microsecond
)

// share decides how much of a CPU the collector takes. It backs off fast when there is other work or a sign that
// others wait, and grows again slowly.
type share struct {
	part float64 // of one CPU
	// floor is the least part: from shareMin to shareLate.
	floor float64
	cost  float64 // nanoseconds of work for a version
	// waited returns how long goroutines had to wait for a CPU since the last call.
	waited func() time.Duration
	// writes counts the applied writes of all shards.
	writes  func() uint64
	written uint64 // its result at the last call
}

func newShare(waited func() time.Duration, writes func() uint64) *share {
	return &share{part: shareMin, floor: shareMin, cost: float64(costFirst), waited: waited, writes: writes}
}

// versions returns how many versions the next step should look at.
func (s *share) versions() int {
	return min(max(int(float64(stepTime)/s.cost), stepVersionsMin), stepVersionsMax)
}

// rest learns from a step and returns how long to leave the CPU to others.
func (s *share) rest(versions int, took time.Duration) time.Duration {
	if versions > stepVersionsMin/2 { // with fewer, mostly the fixed cost of a step is measured
		// A version costs the least that one has taken. Anything above that was waiting, unless it keeps recurring.
		seen := float64(took) / float64(versions)
		s.cost = min(seen, s.cost+(min(seen, 2*s.cost)-s.cost)/32)
	}
	work := s.cost * float64(versions)
	if float64(took) > hurried*max(work, float64(stepTime)) {
		s.backOff()
	}
	return s.after(time.Duration(max(work, float64(stepTime)/4)))
}

// after returns how long to leave the CPU to others after this much work.
func (s *share) after(work time.Duration) time.Duration {
	return time.Duration(float64(work) * (1/s.part - 1))
}

// rested learns from a rest: how much too long it was, how long others waited, and whether anything was written.
func (s *share) rested(late time.Duration) {
	waited, before := s.waited(), s.written
	s.written = s.writes()
	if late > overslept || waited > pressed || s.written != before {
		s.backOff()
	} else {
		s.part = min(s.part*1.1, shareMax)
	}
}

func (s *share) backOff() { s.part = max(s.part/2, s.floor) }

// walked learns from a round of walks over all that had garbage when it began. It was overtaken if there was another
// compaction before its end.
func (s *share) walked(overtaken bool) {
	if overtaken {
		s.floor = min(s.floor*2, shareLate)
	} else {
		s.floor = max(s.floor*0.9, shareMin) // slowly: the next ones will be much like this one
	}
	s.part = max(s.part, s.floor)
}

// waits measures how long goroutines of this process have to wait for a CPU.
type waits struct {
	sample []metrics.Sample
	before []uint64 // counts at the last call
}

func newWaits() *waits {
	w := &waits{sample: []metrics.Sample{{Name: "/sched/latencies:seconds"}}}
	w.since()
	return w
}

// since returns the wait that one in ten goroutines has exceeded since the last call.
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
