package load

import (
	"math"
	"time"
)

const (
	// Times are counted in buckets, of which latencySteps double the time, up to more than
	// six seconds. latencyRound is where one ends, and so do those that double or halve it:
	// what takes as long as such a limit is not told as longer.
	latencyBuckets = 128
	latencySteps   = 8
	latencyRound   = 100 * time.Millisecond
	latencyRoundAt = 80
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

// latencyBucket is the bucket of what took that long.
func latencyBucket(took time.Duration) int {
	if took <= 0 {
		return 0
	}
	doublings := math.Log2(float64(took) / float64(latencyRound))
	return min(max(latencyRoundAt+int(math.Ceil(latencySteps*doublings)), 0), latencyBuckets-1)
}

// latencyEnd is the longest time that belongs to a bucket.
func latencyEnd(bucket int) time.Duration {
	return time.Duration(float64(latencyRound) * math.Exp2(float64(bucket-latencyRoundAt)/latencySteps))
}

// Turn forgets what is older than rateTime. It is to be called now and then.
func (l *Latency) Turn(now time.Time) {
	switch age := now.Sub(l.began); {
	case l.began.IsZero():
		l.began = now
	case age >= rateTime:
		*l = Latency{began: now}
	case age >= rateTime/2:
		*l = Latency{began: now, last: l.now}
	}
}

// Slow is what 99 of 100 took at most, and of fewer all but one, rounded up by less than a
// tenth; 0 when there was none.
func (l *Latency) Slow() time.Duration {
	all := l.count()
	over := all / 100 // may take longer
	if all >= latencyFew {
		over = max(over, 1)
	}
	return l.but(over)
}

// Half is what half of them took at most, rounded up likewise; 0 when there was none.
func (l *Latency) Half() time.Duration { return l.but(l.count() / 2) }

func (l *Latency) count() (all uint64) {
	for i := range l.now {
		all += uint64(l.now[i]) + uint64(l.last[i])
	}
	return all
}

// but is what all but the slowest so many took at most; there are fewer of these than of all.
func (l *Latency) but(over uint64) time.Duration {
	if l.count() == 0 {
		return 0
	}
	for i := latencyBuckets - 1; ; i-- {
		n := uint64(l.now[i]) + uint64(l.last[i])
		if n > over {
			return latencyEnd(i)
		}
		over -= n
	}
}
