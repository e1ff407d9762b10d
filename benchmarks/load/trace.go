package load

import (
	"slices"
	"time"
)

// Sample is one operation of a Steady. Times count from its beginning.
type Sample struct {
	Due  time.Duration // when it should have begun
	Took time.Duration // from then to its answer
	Key  int
	Err  string // "" for one that ended well
}

func (s Sample) end() time.Duration { return s.Due + s.Took }

// Trace is what became of operations, in no order.
type Trace []Sample

// Where is what f says yes to.
func (t Trace) Where(f func(Sample) bool) Trace {
	var out Trace
	for _, s := range t {
		if f(s) {
			out = append(out, s)
		}
	}
	return out
}

// Between is what was due from one time until another.
func (t Trace) Between(from, to time.Duration) Trace {
	return t.Where(func(s Sample) bool { return from <= s.Due && s.Due < to })
}

// Ended is what ended well from one time until another.
func (t Trace) Ended(from, to time.Duration) Trace {
	return t.Where(func(s Sample) bool { return s.Err == "" && from <= s.end() && s.end() < to })
}

// End is when the last of all ended.
func (t Trace) End() (end time.Duration) {
	for _, s := range t {
		end = max(end, s.end())
	}
	return end
}

// Errors counts what failed, by its error.
func (t Trace) Errors() map[string]int {
	out := make(map[string]int)
	for _, s := range t {
		if s.Err != "" {
			out[s.Err]++
		}
	}
	return out
}

// Failed is how many operations did.
func (t Trace) Failed() (n int) {
	for _, s := range t {
		if s.Err != "" {
			n++
		}
	}
	return n
}

// Done is how many operations ended well.
func (t Trace) Done() int { return len(t) - t.Failed() }

// Quantile is the time that the given share of those that ended well took at most; 0 of
// none.
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

// Longest is the largest time that any took, failed ones included.
func (t Trace) Longest() (longest time.Duration) {
	for _, s := range t {
		longest = max(longest, s.Took)
	}
	return longest
}

// Gap is the longest time between two moments without anything ending well.
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

// Second is what happened in one of a trace.
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
