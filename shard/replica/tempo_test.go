package replica

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// tempoLoad is a machine and those who ask it, as a tempo sees them.
type tempoLoad struct {
	tempo *tempo
	busy  float64
	batch int // commands in each
}

func newTempoLoad() *tempoLoad {
	l := &tempoLoad{batch: 2 * smallBatch}
	l.tempo = newTempo(func() float64 { return l.busy }, batchSpacings())
	return l
}

// window has so many commands a second proposed for the time between two looks, and returns
// the distance of the moments then.
func (l *tempoLoad) window(rate float64) time.Duration {
	for left := int(rate * tempoWindow.Seconds()); left > 0; left -= l.batch {
		l.tempo.took(min(left, l.batch))
	}
	bubble.Pass(tempoWindow)
	l.wait()
	return time.Duration(l.tempo.spacing.Load())
}

func (l *tempoLoad) wait() time.Duration { return l.waitAt(time.Now()) }

func (l *tempoLoad) waitAt(now time.Time) time.Duration { return untilTick(now, l.tempo.interval(now)) }

// windows are several.
func (l *tempoLoad) windows(n int, rate float64) (spacing time.Duration) {
	for range n {
		spacing = l.window(rate)
	}
	return spacing
}

// While there is a free processor nothing waits, however much is asked.
func TestTempoOfAFreeMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		l.busy = 0.85
		require.Zero(t, l.windows(100, 50_000))
		require.Zero(t, l.wait())
	})
}

// Where the least distance leaves some processor time, longer ones are not worth the wait, and a moment in which
// it left none is soon forgotten.
func TestTempoOfABusyMachineThatKeepsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		l.busy = 0.92
		require.Equal(t, spacingMin, l.windows(100, 5000))
		l.busy = 0.97
		require.Equal(t, spacingMax, l.window(5000))
		l.busy = 0.91
		require.Equal(t, spacingMax, l.windows(10, 5000), "none would be left again")
		l.busy = 0.88
		require.Equal(t, spacingMin, l.windows(10, 5000))
	})
}

// What a busy machine proposes now and then does not wait: others keep it busy.
func TestTempoOfFewWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		l.busy = 1
		require.Zero(t, l.windows(100, worthwhile-100))
	})
}

// Batches are moved apart while processors are short, up to a bound, and together again when
// they are free or nothing is asked any more.
func TestTempoFollowsTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		l.busy = 0.95
		require.Zero(t, l.window(0))
		require.Zero(t, l.window(3000), "a window in which it has begun")
		require.Equal(t, spacingMin, l.window(5000))
		require.Equal(t, 2*spacingMin, l.window(5500))
		require.Equal(t, spacingMax, l.windows(10, 6000))
		l.busy = 0.85
		require.Equal(t, spacingMin, l.window(6000))
		require.Equal(t, spacingMin, l.windows(10, 6000), "neither short nor free")
		l.busy = 0.7
		require.Zero(t, l.windows(10, 5000))

		l.busy = 1
		require.Equal(t, spacingMax, l.windows(10, 5000))
		bubble.Pass(time.Hour) // nobody asks, so nobody looks
		require.Zero(t, l.wait(), "the first write after a pause")
	})
}

// Clients who ask less because they have to wait are not made to: the distance is given up,
// and tried again after a pause that grows.
func TestTempoOfFewClients(t *testing.T) {
	for _, rates := range []struct{ free, waiting float64 }{{5000, 2000}, {800, 100}} {
		synctest.Test(t, func(t *testing.T) {
			l := newTempoLoad()
			l.busy = 1
			waited, last := 0, 0
			for i := range 1000 {
				rate := rates.free
				if l.tempo.spacing.Load() > 0 {
					rate, last = rates.waiting, i
					waited++
				}
				l.window(rate)
			}
			require.Greater(t, waited, 3)
			require.Less(t, waited, 25*slowWindows)
			require.Greater(t, last, 900, "it is still tried")
		})
	}
}

// Clients who nearly all wait for the next moment are fewer than the longer distance has room for: the shorter one stays,
// and the longer is tried now and then, because there may be more of them some day.
func TestTempoOfClientsWhoAllWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		at := map[time.Duration]struct {
			rate, busy float64
			windows    int
		}{0: {rate: 30_000, busy: 0.97}, spacingMin: {rate: 33_000, busy: 0.95}, spacingMax: {rate: 25_000, busy: 0.57}}
		var spacing time.Duration
		for range 1000 {
			now := at[spacing]
			now.windows++
			at[spacing] = now
			l.busy = now.busy
			spacing = l.window(now.rate)
		}
		require.Less(t, at[0].windows, 5)
		require.Less(t, at[spacingMax].windows, 30)
		require.Greater(t, at[spacingMax].windows, 3)
		l.busy = 1
		for range 2 * giveUpMax {
			spacing = l.window(40_000)
		}
		require.Equal(t, spacingMax, spacing, "there are more now")
	})
}

// Few clients who were better off without a distance are no reason to keep many from it.
func TestTempoWhenMoreClientsCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		var spacing time.Duration
		for range 1000 { // a few clients: they all wait for the first moment already
			l.busy = 1
			rate := 5000.0
			if spacing > 0 {
				l.busy, rate = 0.5, 3000
			}
			spacing = l.window(rate)
		}
		l.busy = 1
		require.Equal(t, spacingMax, l.windows(5, 12_000))
	})
}

// A distance that lowered the rate is given up for the next shorter one, which had proved itself.
func TestTempoGivesUpOneStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		l.busy = 1
		require.Equal(t, spacingMin, l.window(30_000))
		require.Equal(t, spacingMax, l.window(33_000))
		require.Equal(t, spacingMax, l.windows(slowWindows-1, 20_000))
		require.Equal(t, spacingMin, l.window(20_000))
		require.Equal(t, spacingMin, l.windows(giveUpMin, 33_000))
	})
}

// Clients that stand still for a moment, all of them, do not wait for batches.
func TestTempoOfClientsThatStandStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		l.busy = 1
		require.Equal(t, spacingMax, l.windows(10, 20_000))
		for _, rate := range []float64{100, 20_000, 8000, 20_000, 0, 20_000} {
			require.Equal(t, spacingMax, l.window(rate))
		}
	})
}

// Small batches are moved further apart than that, unless it leaves processors idle, and no longer than they are small.
func TestTempoOfSmallBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		l.busy, l.batch = 0.95, smallBatch/4
		require.Equal(t, spacingSmall, l.windows(10, 5000))
		l.busy = 0.7
		require.Equal(t, spacingSmall, l.windows(10, 5000), "processors idle before each moment")
		l.busy = 0.6
		require.Equal(t, spacingMax, l.window(5000))
		l.busy = 0.95
		require.Equal(t, spacingMax, l.windows(enough, 5000), "it is known to be too long")
		require.Equal(t, spacingSmall, l.window(5000))
		l.batch = 2 * smallBatch
		require.Equal(t, spacingMax, l.windows(10, 5000))
	})
}

// Where ticks come before they are due, processors that idle do so for another reason.
func TestTempoWhoseTicksComeEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		early := true
		l.tempo.early = func() bool { return early }
		l.busy, l.batch = 0.95, smallBatch/4
		require.Equal(t, spacingSmall, l.windows(10, 5000))
		l.busy = 0.3 // the disk stands still for a moment
		require.Equal(t, spacingSmall, l.window(4500))
		early = false
		require.Equal(t, spacingMax, l.window(4500))
		early, l.batch = true, 2*smallBatch
		require.Equal(t, spacingMin, l.window(5000), "other spacings are judged as ever")
	})
}

// A few small batches are not moved further apart than others: they would only wait longer.
func TestTempoOfFewSmallBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		l.busy, l.batch = 0.95, 3
		few := (manyBatches - 1) * float64(l.batch) / spacingMax.Seconds()
		require.Equal(t, spacingMax, l.windows(50, few))
		require.Equal(t, spacingSmall, l.windows(10, 2*few))
		require.Equal(t, spacingMax, l.windows(10, few/4), "they have become few")
	})
}

// When less is asked for, the distance is not to blame: it is there again when processors are short.
func TestTempoWhenLessIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		for range 5 {
			l.busy = 1
			require.Equal(t, spacingMax, l.windows(5, 20_000))
			l.busy = 0.85
			l.windows(10, 8000)
		}
		for range 5 {
			l.busy = 1
			require.Equal(t, spacingMax, l.windows(5, 20_000))
			require.Equal(t, spacingMax, l.windows(8, 8000), "others keep the machine busy")
		}
	})
}

// All proposers wait for the same moments.
func TestTempoHasCommonMoments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		l.busy = 1
		require.Equal(t, spacingMax, l.windows(10, 5000))
		moment := time.Now().Add(l.wait())
		for range 7 {
			bubble.Pass(spacingMax / 8)
			require.Equal(t, moment, time.Now().Add(l.wait()))
		}
	})
}

// The clock was set back since a shard's last batch: it does not wait for the time when that was.
func TestTempoAfterAStepOfTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		l.busy = 1
		require.Equal(t, spacingMax, l.windows(10, 5000))
		for _, now := range []time.Time{time.Now(), time.Now().Add(-time.Hour), time.Now().Add(-time.Hour + spacingMax/2)} {
			require.LessOrEqual(t, l.waitAt(now), spacingMax)
		}
	})
}

// A batch starts at the next moment, or when it is full, or at once when keys are without service (P13).
func TestBatchWaitsForTheMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		p := &proposer{tempo: l.tempo, muster: &muster{}, convoy: &convoy{}, metrics: NewMetrics(prometheus.NewRegistry()), full: make(chan struct{}, 1)}
		paused := func() time.Duration {
			began := time.Now()
			p.pause()
			return time.Since(began)
		}
		enqueue := func(n int) {
			p.mu.running = true // nobody drains
			for range n {
				p.submit(&shardpb.Command{}, func(shard.Result) {})
			}
		}
		enqueue(1)
		require.Zero(t, paused())
		l.busy = 1
		l.windows(10, 5000)
		require.LessOrEqual(t, paused(), spacingMax)
		require.Equal(t, spacingMax, paused(), "from one moment to the next")
		p.leaderChanged()
		require.Zero(t, paused(), "keys were unavailable")
		require.LessOrEqual(t, paused(), spacingMax)
		require.Equal(t, spacingMax, paused())
		l.tempo.spacing.Store(0)
		p.leaderChanged()
		require.Zero(t, paused())
		l.tempo.spacing.Store(int64(spacingMax))
		require.NotZero(t, paused(), "the first under this leader was a while ago")

		time.AfterFunc(time.Millisecond, func() { enqueue(batchCommandsMax) })
		require.Equal(t, time.Millisecond, paused())
		require.Zero(t, paused(), "still full")
		p.mu.queue = p.mu.queue[:1]
		require.NotZero(t, paused())
		p.full <- struct{}{} // of a batch that has gone
		require.Equal(t, spacingMax, paused())

		for _, kind := range []shardpb.Kind{shardpb.Kind_INIT, shardpb.Kind_SUBSUME} { // keys wait for them
			time.AfterFunc(time.Millisecond, func() { p.submit(&shardpb.Command{Kind: kind}, func(shard.Result) {}) })
			require.Equal(t, time.Millisecond, paused())
			require.Zero(t, paused(), "it waits still")
			_, more := p.next()
			require.True(t, more)
			require.NotZero(t, paused())
		}
	})
}

// A round of reads starts at the next moment, with all that came until then (P13).
func TestRoundWaitsForTheMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		l.tempo.may = roundSpacings()
		g := &barriers{tempo: l.tempo}
		next := func() (reads int, waited time.Duration) {
			began := time.Now()
			for _, q := range g.next(nil) {
				q.barrier.busy = false
				reads += q.reads
			}
			return reads, time.Since(began)
		}
		one, another := &barrier{group: g}, &barrier{group: g}
		g.mu.running = true // nobody else does rounds
		g.join(one, nil)
		reads, waited := next()
		require.Equal(t, 1, reads)
		require.Zero(t, waited)

		l.busy = 1
		l.windows(10, 5000)
		bubble.Pass(time.Millisecond) // a moment was just now
		g.mu.running = true
		g.join(one, nil)
		time.AfterFunc(roundMin, func() {
			g.join(one, nil)
			g.join(another, nil)
		})
		reads, waited = next()
		require.Equal(t, 3, reads)
		require.LessOrEqual(t, waited, roundMax)
		require.NotZero(t, waited)
	})
}

// Whoever wants to know is told of each distance, once.
func TestTempoTellsItsDistances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTempoLoad()
		var told []time.Duration
		l.tempo.moved = func(spacing time.Duration) { told = append(told, spacing) }
		l.busy = 0.95
		l.windows(10, 5000)
		l.busy = 0.7
		l.windows(10, 5000)
		require.Equal(t, []time.Duration{spacingMin, spacingMax, spacingMin, 0}, told)
	})
}
