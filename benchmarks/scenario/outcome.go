package scenario

import (
	"time"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
)

// Outcome is the result of a scenario.
type Outcome struct {
	Name    string   `json:"name"`
	Figures []Figure `json:"figures"`
	Phases  []Phase  `json:"phases,omitempty"`
	// Costs are those of workloads on numbers of shards.
	Costs []Cost `json:"costs,omitempty"`
	// Lines are the load second by second, one for each way it was run.
	Lines []Line `json:"lines,omitempty"`
}

// Line is one course of a load, and the events during it.
type Line struct {
	Name    string        `json:"name"`
	Seconds []load.Second `json:"seconds"`
	Marks   []Mark        `json:"marks,omitempty"`
}

// Mark is an event.
type Mark struct {
	At   time.Duration `json:"at_ns"`
	What string        `json:"what"`
}

// Figure is one number, and what it should be.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
	Bound *Bound  `json:"bound,omitempty"` // nil: there is none
}

// Bound is what a figure must be, and what it should be.
type Bound struct {
	Must    float64 `json:"must"`
	Goal    float64 `json:"goal"`
	AtLeast bool    `json:"at_least,omitempty"` // instead of at most
}

func atMost(must, goal float64) *Bound { return &Bound{Must: must, Goal: goal} }
func atLeast(must float64) *Bound      { return &Bound{Must: must, Goal: must, AtLeast: true} }

// Verdict compares the figure with its bound; "" without one.
func (f Figure) Verdict() string {
	if f.Bound == nil {
		return ""
	}
	reaches := func(limit float64) bool {
		if f.Bound.AtLeast {
			return f.Value >= limit
		}
		return f.Value <= limit
	}
	switch {
	case reaches(f.Bound.Goal):
		return "goal met"
	case reaches(f.Bound.Must):
		return "must met"
	}
	return "MUST MISSED"
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Phase is a part of the time, and the load's results in it.
type Phase struct {
	Name      string         `json:"name"`
	Seconds   float64        `json:"seconds"`
	PerSecond float64        `json:"per_second"` // that ended well, by when they were due
	Failed    int            `json:"failed"`
	P50       float64        `json:"p50_ms"`
	P99       float64        `json:"p99_ms"`
	Max       float64        `json:"max_ms"`
	Errors    map[string]int `json:"errors,omitempty"`
}

// phaseOf sums up what was due from one time until another.
func phaseOf(name string, t load.Trace, from, to time.Duration) Phase {
	t = t.Between(from, to)
	return Phase{
		Name: name, Seconds: (to - from).Seconds(), PerSecond: float64(t.Done()) / (to - from).Seconds(),
		Failed: t.Failed(), Errors: t.Errors(),
		P50: millis(t.Quantile(0.5)), P99: millis(t.Quantile(0.99)), Max: millis(t.Longest()),
	}
}

// perSecond is how many requests were answered well a second, from one time until another.
func perSecond(t load.Trace, from, to time.Duration) float64 {
	return float64(len(t.Ended(from, to))) / (to - from).Seconds()
}

// worstSecond is the fewest answers of any second that lies whole between two times.
func worstSecond(t load.Trace, from, to time.Duration) float64 {
	fewest := -1
	for at := from; at+time.Second <= to; at += time.Second {
		if n := len(t.Ended(at, at+time.Second)); fewest < 0 || n < fewest {
			fewest = n
		}
	}
	return float64(max(0, fewest))
}
