package load

import (
	"cmp"
	"slices"
	"time"
)

// Sample is one operation of a Steady. Times count from its start.
type Sample struct {
	Due  time.Duration // when it should have begun
	Took time.Duration // from then to its answer
	Key  int
	Err  string // "" for one that ended well
}

func (s Sample) end() time.Duration { return s.Due + s.Took }

// Trace is a set of finished operations, in no particular order.
type Trace []Sample

// Where returns the operations for which f is true.
func (t Trace) Where(f func(Sample) bool) Trace {
	var out Trace
	for _, s := range t {
		if f(s) {
			out = append(out, s)
		}
	}
	return out
}

// Between returns the operations that were due in the interval.
func (t Trace) Between(from, to time.Duration) Trace {
	return t.Where(func(s Sample) bool { return from <= s.Due && s.Due < to })
}

// Ended returns the operations that succeeded in the interval.
func (t Trace) Ended(from, to time.Duration) Trace {
	return t.Where(func(s Sample) bool { return s.Err == "" && from <= s.end() && s.end() < to })
}

// End is when the last operation ended.
func (t Trace) End() (end time.Duration) {
	for _, s := range t {
		end = max(end, s.end())
	}
	return end
}

// Errors counts the failed operations by error.
func (t Trace) Errors() map[string]int {
	out := make(map[string]int)
	for _, s := range t {
		if s.Err != "" {
			out[s.Err]++
		}
	}
	return out
}

// Failed is the number of failed operations.
func (t Trace) Failed() (n int) {
	for _, s := range t {
		if s.Err != "" {
			n++
		}
	}
	return n
}

// Done is the number of operations that succeeded.
func (t Trace) Done() int { return len(t) - t.Failed() }

// Quantile is the given quantile of the successful operations' latency; 0 if there are none.
func (t Trace) Quantile(share float64) time.Duration {
	var took []time.Duration
	for _, s := range t {
		if s.Err == "" {
			took = append(took, s.Took)
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[min(len(took)-1, int(share*float64(len(took))))]
}

// Longest is the largest latency, including failed operations.
func (t Trace) Longest() (longest time.Duration) {
	for _, s := range t {
		longest = max(longest, s.Took)
	}
	return longest
}

// Gap is the longest time without a successful end.
func (t Trace) Gap(from, to time.Duration) (longest time.Duration) {
	var ends []time.Duration
	for _, s := range t {
		if s.Err == "" && from < s.end() && s.end() < to {
			ends = append(ends, s.end())
		}
	}
	slices.Sort(ends)
	last := from
	for _, end := range append(ends, to) {
		longest, last = max(longest, end-last), end
	}
	return longest
}

// Silence is the longest time in which operations waited and none ended well. Unlike Gap it does not count times in which
// nothing was due: of few operations a second the longest of those is long.
func (t Trace) Silence(from, to time.Duration) (longest time.Duration) {
	type event struct {
		at        time.Duration
		due, well bool
	}
	var events []event
	for _, s := range t {
		events = append(events, event{at: s.Due, due: true}, event{at: s.end(), well: s.Err == ""})
	}
	slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	waiting, since := 0, time.Duration(0)
	silent := func(until time.Duration) { longest = max(longest, min(until, to)-max(since, from)) }
	for _, e := range events {
		if e.due {
			if waiting == 0 {
				since = e.at
			}
			waiting++
			continue
		}
		waiting--
		if e.well || waiting == 0 {
			silent(e.at)
			since = e.at
		}
	}
	return longest
}

// Second summarises one second of a trace.
type Second struct {
	Done   int           `json:"done"` // ended well in it
	Failed int           `json:"failed,omitempty"`
	P99    time.Duration `json:"p99_ns"` // of what was due in it
	Max    time.Duration `json:"max_ns"`
}

// Seconds is the trace second by second, from its beginning.
func (t Trace) Seconds() []Second {
	if len(t) == 0 {
		return nil
	}
	out := make([]Second, t.End()/time.Second+1)
	due := make([]Trace, len(out))
	for _, s := range t {
		due[s.Due/time.Second] = append(due[s.Due/time.Second], s)
		if end := &out[s.end()/time.Second]; s.Err == "" {
			end.Done++
		} else {
			end.Failed++
		}
	}
	for i := range out {
		out[i].P99, out[i].Max = due[i].Quantile(0.99), due[i].Longest()
	}
	return out
}
