package load

import (
	"math"
	"time"
)

const (
	// latencyBuckets reach from latencyFirst to more than three seconds, each half as
	// long again as the last but one.
	latencyBuckets = 32
	latencyFirst   = 100 * time.Microsecond
	// latencyFew is from how many on a single slow one is put down to chance; of fewer, it may be
	// all there is to go by.
	latencyFew = 10
)

// Latency tells how long the slow ones of something take. The zero value knows none.
type Latency struct {
	began time.Time
	// now is being filled; last is the half minute before. Both count.
	now, last [latencyBuckets]uint32
}

// Observe counts one.
func (l *Latency) Observe(took time.Duration) { l.now[latencyBucket(took)]++ }

func latencyBucket(took time.Duration) int {
	if took <= latencyFirst {
		return 0
	}
	doublings := math.Log2(float64(took) / float64(latencyFirst))
	return min(int(math.Ceil(2*doublings)), latencyBuckets-1)
}

// Turn forgets what is older than RateTime. It is to be called now and then.
func (l *Latency) Turn(now time.Time) {
	switch age := now.Sub(l.began); {
	case l.began.IsZero():
		l.began = now
	case age >= RateTime:
		*l = Latency{began: now}
	case age >= RateTime/2:
		*l = Latency{began: now, last: l.now}
	}
}

// Slow is what 99 of 100 took at most, and of fewer all but one, rounded up to half a
// doubling; 0 when there was none.
func (l *Latency) Slow() time.Duration {
	var all uint64
	for i := range l.now {
		all += uint64(l.now[i]) + uint64(l.last[i])
	}
	if all == 0 {
		return 0
	}
	over := all / 100 // may take longer
	if all >= latencyFew {
		over = max(over, 1)
	}
	for i := latencyBuckets - 1; ; i-- {
		n := uint64(l.now[i]) + uint64(l.last[i])
		if n > over {
			return time.Duration(float64(latencyFirst) * math.Exp2(float64(i)/2))
		}
		over -= n
	}
}
