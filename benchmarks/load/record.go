package load

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Latencies are recorded from 1 µs to a minute with three digits.
const (
	latencyMin    = 1 // µs
	latencyMax    = 60_000_000
	latencyDigits = 3
	// secondDigits is enough to find the worst of many seconds, at a tenth of the memory.
	secondDigits = 2
)

// recorder collects from many clients. It is split into parts, because one lock
// for all clients would be part of what is measured, and one histogram for each
// would take hundreds of megabytes.
type recorder struct{ parts []*part }

const recorderParts = 16

type part struct {
	mu struct {
		sync.Mutex
		latency *hdrhistogram.Histogram
		done    int64 // ended well within the window
		errors  map[string]int64
		seconds map[int]*second
	}
}

// second is one of those that the window consists of.
type second struct {
	latency *hdrhistogram.Histogram // of what started in it
	done    int64                   // ended well in it
}

func newSecond() *second {
	return &second{latency: hdrhistogram.New(latencyMin, latencyMax, secondDigits)}
}

// second is the one that t lies in; the part is locked.
func (p *part) second(w window, t time.Time) *second {
	i := int(t.Sub(w.start) / time.Second)
	if p.mu.seconds[i] == nil {
		p.mu.seconds[i] = newSecond()
	}
	return p.mu.seconds[i]
}

func newRecorder() *recorder {
	r := &recorder{parts: make([]*part, recorderParts)}
	for i := range r.parts {
		p := &part{}
		p.mu.latency = hdrhistogram.New(latencyMin, latencyMax, latencyDigits)
		p.mu.errors = make(map[string]int64)
		p.mu.seconds = make(map[int]*second)
		r.parts[i] = p
	}
	return r
}

// window is the measured time.
type window struct{ start, end time.Time }

func (w window) contains(t time.Time) bool { return !t.Before(w.start) && t.Before(w.end) }

// add notes one operation of a client (L2, L3).
func (r *recorder) add(client int, w window, started, ended time.Time, err error) {
	if !w.contains(started) && !w.contains(ended) {
		return
	}
	p := r.parts[client%len(r.parts)]
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.mu.errors[errorName(err)]++
		return
	}
	if w.contains(ended) {
		p.mu.done++
		p.second(w, ended).done++
	}
	if w.contains(started) {
		// Values above the range are recorded as its end: never lost.
		took := min(max(ended.Sub(started).Microseconds(), latencyMin), latencyMax)
		_ = p.mu.latency.RecordValue(took)
		_ = p.second(w, started).latency.RecordValue(took)
	}
}

func (r *recorder) result(w window) Result {
	whole := hdrhistogram.New(latencyMin, latencyMax, latencyDigits)
	out := Result{Seconds: w.end.Sub(w.start).Seconds(), Errors: make(map[string]int64)}
	for _, p := range r.parts {
		p.mu.Lock()
		whole.Merge(p.mu.latency)
		out.Operations += p.mu.done
		for name, n := range p.mu.errors {
			out.Errors[name] += n
		}
		p.mu.Unlock()
	}
	out.PerSecond = float64(out.Operations) / out.Seconds
	out.Latency = Latency{
		P50: whole.ValueAtQuantile(50), P90: whole.ValueAtQuantile(90), P99: whole.ValueAtQuantile(99),
		P999: whole.ValueAtQuantile(99.9), Max: whole.Max(),
	}
	out.Worst = r.worst(int(out.Seconds))
	return out
}

// worst looks for the worst of the first n seconds of the window; the last one may be
// only begun.
func (r *recorder) worst(n int) (worst WorstSecond) {
	for i := range n {
		whole := newSecond()
		for _, p := range r.parts {
			p.mu.Lock()
			if s := p.mu.seconds[i]; s != nil {
				whole.latency.Merge(s.latency)
				whole.done += s.done
			}
			p.mu.Unlock()
		}
		if i == 0 || whole.done < worst.Operations {
			worst.Operations = whole.done
		}
		worst.P99 = max(worst.P99, whole.latency.ValueAtQuantile(99))
	}
	return worst
}

// errorName groups errors: by code, and by text where the code says nothing.
func errorName(err error) string {
	if code := status.Code(err); code != codes.Unknown {
		return code.String()
	}
	return err.Error()
}

// Result is the result of one run of a workload.
type Result struct {
	Seconds    float64          `json:"seconds"`
	Operations int64            `json:"operations"`
	PerSecond  float64          `json:"per_second"`
	Latency    Latency          `json:"latency_us"`
	Worst      WorstSecond      `json:"worst_second"`
	Errors     map[string]int64 `json:"errors,omitempty"`
	// Held is how many more watchers or leases the servers hold at the end of the window than at
	// its start.
	Held int64 `json:"held,omitempty"`
}

// ErrorCount is the number of operations that failed.
func (r Result) ErrorCount() (n int64) {
	for _, c := range r.Errors {
		n += c
	}
	return n
}

// Latency is in microseconds.
type Latency struct {
	P50  int64 `json:"p50"`
	P90  int64 `json:"p90"`
	P99  int64 `json:"p99"`
	P999 int64 `json:"p999"`
	Max  int64 `json:"max"`
}

// WorstSecond is the worst of the single seconds; zero where the window had no whole second.
type WorstSecond struct {
	// P99 is the largest of any second, in microseconds.
	P99 int64 `json:"p99_us"`
	// Operations is the smallest number of any second.
	Operations int64 `json:"operations"`
}
