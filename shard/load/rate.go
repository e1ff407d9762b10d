package load

import (
	"math"
	"time"
)

// rateTime is the time over which rates are averaged: what was half of it ago weighs
// about half as much as what is now.
const rateTime = time.Minute

// Rate is how fast a count grows, per second, with what is recent weighing most (G1).
// The zero value has not seen anything.
type Rate struct {
	total int64
	at    time.Time
	// sum and weight both decay. Their quotient is an average from the beginning on,
	// where a plain one would first have to rise from nothing.
	sum, weight float64
}

// Observe takes a reading of the count.
func (r *Rate) Observe(total int64, now time.Time) {
	elapsed := now.Sub(r.at).Seconds()
	if r.at.IsZero() {
		r.total, r.at = total, now
		return
	}
	if elapsed <= 0 {
		return // the next reading covers it
	}
	kept := math.Exp(-elapsed / (rateTime.Seconds() / 2))
	r.sum = r.sum*kept + float64(total-r.total)/elapsed*(1-kept)
	r.weight = r.weight*kept + 1 - kept
	r.total, r.at = total, now
}

// PerSecond is the rate; 0 as long as it is not known.
func (r *Rate) PerSecond() float64 {
	if r.weight == 0 {
		return 0
	}
	return r.sum / r.weight
}

// Settled reports whether the rate has seen enough for one burst not to make it.
func (r *Rate) Settled() bool { return r.weight >= 0.5 }
