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
	}
}

func newRecorder() *recorder {
	r := &recorder{parts: make([]*part, recorderParts)}
	for i := range r.parts {
		p := &part{}
		p.mu.latency = hdrhistogram.New(latencyMin, latencyMax, latencyDigits)
		p.mu.errors = make(map[string]int64)
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
	}
	if w.contains(started) {
		// Values above the range are recorded as its end: never lost.
		_ = p.mu.latency.RecordValue(min(max(ended.Sub(started).Microseconds(), latencyMin), latencyMax))
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
	return out
}

// errorName groups errors: by code, and by text where the code says nothing.
func errorName(err error) string {
	if code := status.Code(err); code != codes.Unknown {
		return code.String()
	}
	return err.Error()
}

// Result is what one run of a workload gave.
type Result struct {
	Seconds    float64          `json:"seconds"`
	Operations int64            `json:"operations"`
	PerSecond  float64          `json:"per_second"`
	Latency    Latency          `json:"latency_us"`
	Errors     map[string]int64 `json:"errors,omitempty"`
	// Held is how many watchers or leases the servers hold at the end of the window that
	// they did not at its start.
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
