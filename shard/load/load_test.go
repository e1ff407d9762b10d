package load

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// G1, at a rate that never changes: however readings are spaced, it is right from the
// second one on.
func TestARateNeedsNoTimeToRise(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 100 {
		var r Rate
		now, seconds, total := start, 0.0, int64(7) // counts of before do not matter
		r.Observe(total, now)
		require.Zero(t, r.PerSecond())
		require.False(t, r.Settled())
		for range 50 {
			step := time.Duration(random.IntN(5000)) * time.Millisecond
			now, seconds = now.Add(step), seconds+step.Seconds()
			r.Observe(total+int64(1000*seconds), now)
			if seconds > 0 {
				require.InEpsilon(t, 1000, r.PerSecond(), 0.01)
			}
		}
		require.True(t, r.Settled())
	}
}

// G1, when it changes: after rateTime most of it is new, and after several all.
func TestARateFollows(t *testing.T) {
	var r Rate
	now, total := start, int64(0)
	run := func(perSecond int64, d time.Duration) {
		for range int(d / time.Second) {
			now, total = now.Add(time.Second), total+perSecond
			r.Observe(total, now)
		}
	}
	r.Observe(0, now)
	run(100, 10*rateTime)
	run(1000, rateTime)
	require.InDelta(t, 1000-900/math.E/math.E, r.PerSecond(), 10)
	run(0, 10*rateTime)
	require.Less(t, r.PerSecond(), 0.001)
}

// G2, against a model that remembers everything.
func TestAPeakCoversItsWindow(t *testing.T) {
	const window = 15 * time.Minute
	random := rand.New(rand.NewPCG(2, 2))
	var p Peak
	type seen struct {
		at    time.Time
		value float64
	}
	var history []seen
	now := start
	for range 5000 {
		now = now.Add(time.Duration(random.IntN(30_000)) * time.Millisecond)
		value := random.ExpFloat64()
		p.Observe(value, now, window)
		history = append(history, seen{now, value})
		within, nearly := 0.0, 0.0
		for _, h := range history {
			if age := now.Sub(h.at); age <= window {
				within = max(within, h.value)
			}
			if age := now.Sub(h.at); age <= window+window/15 {
				nearly = max(nearly, h.value)
			}
		}
		require.GreaterOrEqual(t, p.Highest(), within)
		require.LessOrEqual(t, p.Highest(), nearly)
	}
	p.Observe(100, now, window)
	p.Observe(0, now.Add(time.Second), 2*window)
	require.Equal(t, 100.0, p.Highest(), "with another window nothing is forgotten")
	p.Observe(0, now.Add(2*time.Second), window/2)
	require.Equal(t, 100.0, p.Highest())
	p.Observe(1, now.Add(time.Hour), window/2)
	require.Equal(t, 1.0, p.Highest())
}

// write gives the sample n writes of the keys that pick names.
func write(s *Sample, n int, pick func(i int) string) {
	for i := range n {
		if s.Wants() {
			s.Add([]byte(pick(i)))
		}
	}
}

// G3: the first half of the minute and its second half are in it alike, and also when
// the keys come in a pattern.
func TestASampleIsEven(t *testing.T) {
	const perSecond = 1000
	var s Sample
	s.Pace(perSecond)
	for round := range 3 {
		write(&s, perSecond*60, func(i int) string { return fmt.Sprintf("%d/%05d/%d", round, i, i%2) })
	}
	require.Len(t, s.keys, sampleKeys)
	early, odd := 0, 0
	for _, k := range s.keys {
		var round, i, half int
		_, err := fmt.Sscanf(string(k), "%d/%d/%d", &round, &i, &half)
		require.NoError(t, err)
		require.GreaterOrEqual(t, round*60000+i, 45_000+60_000, "of about the last minute")
		if i < 30000 {
			early++
		}
		odd += half
	}
	require.InDelta(t, sampleKeys/2, early, 20)
	require.InDelta(t, sampleKeys/2, odd, 20)
}

func TestWhereWritesDivide(t *testing.T) {
	cases := []struct {
		name string
		pick func(r *rand.Rand) string
		key  string // "" for none
		left float64
	}{
		{"two halves", func(r *rand.Rand) string { return []string{"a", "b"}[r.IntN(2)] }, "b", 0.5},
		{"one key", func(*rand.Rand) string { return "a" }, "", 0},
		{"a hot key at the end", func(r *rand.Rand) string {
			return []string{"a", "z", "z", "z", "z", "z", "z", "z", "z", "z"}[r.IntN(10)]
		}, "z", 0.1},
		{"a hot key at the beginning", func(r *rand.Rand) string {
			return []string{"a", "a", "a", "a", "a", "a", "a", "a", "a", "z"}[r.IntN(10)]
		}, "z", 0.9},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(3, 3))
			var s Sample
			write(&s, 5000, func(int) string { return c.pick(random) })
			p := s.Point()
			require.Equal(t, c.key, string(p.Key))
			require.InDelta(t, c.left, p.Left, 0.1)
		})
	}
	t.Run("many keys", func(t *testing.T) {
		random := rand.New(rand.NewPCG(4, 4))
		var s Sample
		s.Pace(100)
		write(&s, 20_000, func(int) string { return fmt.Sprintf("%04d", random.IntN(10_000)) })
		p := s.Point()
		require.Greater(t, string(p.Key), "3500")
		require.Less(t, string(p.Key), "6500")
		require.InDelta(t, 0.5, p.Left, 0.02)
	})
	t.Run("too few", func(t *testing.T) {
		var s Sample
		write(&s, pointKeysMin-1, func(i int) string { return fmt.Sprint(i) })
		require.Empty(t, s.Point().Key)
	})
}

func TestLatencyOfTheSlow(t *testing.T) {
	var l Latency
	require.Zero(t, l.Slow())
	now := start
	l.Turn(now)
	for range 990 {
		l.Observe(time.Millisecond)
	}
	for range 10 {
		l.Observe(time.Second)
	}
	require.InEpsilon(t, float64(time.Millisecond), float64(l.Slow()), 0.1, "one in a hundred may be slow")
	l.Observe(time.Second)
	require.InEpsilon(t, float64(time.Second), float64(l.Slow()), 0.1)
	require.GreaterOrEqual(t, l.Slow(), time.Second, "never told as less than it was")
	require.InEpsilon(t, float64(time.Millisecond), float64(l.Half()), 0.1)
	l.Turn(now.Add(rateTime / 2))
	require.GreaterOrEqual(t, l.Slow(), time.Second, "half a minute later it still counts")
	l.Turn(now.Add(rateTime))
	require.Zero(t, l.Slow())
	require.Zero(t, l.Half())
	l.Observe(time.Hour)
	require.Equal(t, l.Slow(), l.Half(), "of one")
	require.Greater(t, l.Slow(), 3*time.Second)
}

// What is told is never less than what it took, and less than a tenth more.
func TestLatencyIsRoundedUpByLittle(t *testing.T) {
	told := func(took time.Duration) time.Duration {
		var l Latency
		l.Observe(took)
		return l.Slow()
	}
	for took := 100 * time.Microsecond; took < 5*time.Second; took += took / 50 {
		require.GreaterOrEqual(t, told(took)+1, took) // to the nanosecond
		require.Less(t, float64(told(took)), 1.1*float64(took))
	}
	for _, limit := range []time.Duration{25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond} {
		require.Equal(t, limit, told(limit), "it is not over the limit")
		require.Greater(t, told(limit+limit/1000), limit)
	}
}

// A disk is not slow because one of its few syncs was.
func TestOneSlowOfAFew(t *testing.T) {
	var l Latency
	l.Turn(start)
	l.Observe(time.Second)
	for range latencyFew - 1 {
		require.GreaterOrEqual(t, l.Slow(), time.Second, "of so few it may be the rule")
		l.Observe(time.Millisecond)
	}
	require.InEpsilon(t, float64(time.Millisecond), float64(l.Slow()), 0.1)
	l.Observe(time.Second)
	require.GreaterOrEqual(t, l.Slow(), time.Second, "two are no chance")
}
