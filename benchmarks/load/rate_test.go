package load

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/flotilla-kv/flotilla/internal/bubble"
)

// L6: a server that stands still for a second is seen by everything that was due in it.
func TestAStallIsInAllLatencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		stall := func(ctx context.Context) error {
			if at := time.Since(began); at >= 3*time.Second && at < 4*time.Second {
				pause(ctx, 4*time.Second-at)
			}
			pause(ctx, time.Millisecond)
			return nil
		}
		got, err := Run(t.Context(), closed{looped: fake{stall}}, &Env{}, Plan{
			Clients: 2, Duration: 10 * time.Second, Rate: 100,
		})
		require.NoError(t, err)
		require.Equal(t, int64(1000), got.Operations)
		require.InDelta(t, time.Second.Microseconds(), got.Latency.Max, 2000)
		// A tenth was due in the stall, of which a closed loop of two would have sent two.
		require.InDelta(t, 1000, got.Latency.P50, 10)
		require.Greater(t, got.Latency.P99, int64(800_000))
		require.Greater(t, got.Worst.P99, int64(900_000))
		require.LessOrEqual(t, got.Worst.Operations, int64(1))
	})
}

// With more due than can be done, each has its timeout from when it was due, and none is
// left out: it takes no longer than it should have.
func TestWhatIsTooLateIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context) error {
			pause(ctx, 300*time.Millisecond)
			return ctx.Err()
		}
		began := time.Now()
		win, rec := Plan{Duration: 20 * time.Second}.window(), newRecorder()
		atRate(t.Context(), 10, 1, time.Second, win, rec, func(int) Operation { return slow })
		got := rec.result(win)
		require.Equal(t, int64(200), got.ErrorCount()+got.Operations)
		require.Positive(t, got.Operations)
		require.Positive(t, got.ErrorCount())
		require.LessOrEqual(t, time.Since(began), 21*time.Second)
	})
}

func TestASteadyKeepsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Begin(t.Context(), 100, time.Second, func(ctx context.Context, _, number int) (int, error) {
			if number == 50 {
				<-ctx.Done()
				return number, ctx.Err()
			}
			pause(ctx, 10*time.Millisecond)
			return number, nil
		})
		bubble.Pass(2*time.Second - time.Millisecond)
		trace := s.Stop()
		require.Len(t, trace, 200)
		require.Equal(t, map[string]int{context.DeadlineExceeded.Error(): 1}, trace.Errors())
		require.Equal(t, 199, trace.Done())
		require.Equal(t, time.Second, trace.Longest())
		require.Equal(t, 10*time.Millisecond, trace.Quantile(0.99))
		require.Len(t, trace.Between(time.Second, 2*time.Second), 100)
		seconds := trace.Seconds()
		require.Equal(t, 1, seconds[1].Failed, "it ended in the second one")
		require.Equal(t, time.Second, seconds[0].Max, "and was due in the first")
	})
}

// More is due than clients can do: each has the next one within the grain, nothing waits, and what nobody begins has failed.
func TestBusyClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const took = 100 * time.Millisecond
		s := BeginBusy(t.Context(), 1000, 2, time.Second, func(ctx context.Context, _, number int) (int, error) {
			pause(ctx, took)
			return number, nil
		})
		bubble.Pass(10*time.Second - time.Millisecond/2)
		trace := s.Stop()
		require.InDelta(t, 10_000, len(trace), 2)
		require.InDelta(t, 200, trace.Done(), 4)
		require.Equal(t, map[string]int{busyText: len(trace) - trace.Done()}, trace.Errors())
		require.LessOrEqual(t, trace.Longest(), took+2*busyGrain)
	})
}

func TestAbandonedRequestsAreNotWaitedFor(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	begun := make(chan struct{})
	hanging := sync.OnceFunc(func() { close(begun) })
	s := Begin(t.Context(), 1000, time.Hour, func(ctx context.Context, _, number int) (int, error) {
		hanging()
		<-ctx.Done()
		return number, ctx.Err()
	})
	<-begun
	trace := s.Abandon()
	require.NotEmpty(t, trace)
	require.Equal(t, len(trace), trace.Failed())
}

func TestGapIsTheLongestTimeWithoutAnAnswer(t *testing.T) {
	at := func(ms int) Sample { return Sample{Due: time.Duration(ms) * time.Millisecond} }
	failed := at(300)
	failed.Err = "x"
	trace := Trace{at(600), at(100), failed, at(150)}
	require.Equal(t, 450*time.Millisecond, trace.Gap(0, 700*time.Millisecond))
	require.Equal(t, 2400*time.Millisecond, trace.Gap(0, 3*time.Second), "also at the end")
	require.Equal(t, time.Second, Trace(nil).Gap(0, time.Second))
	require.Zero(t, Trace(nil).Quantile(0.99))
	require.Empty(t, Trace(nil).Seconds())
}

// The first rank gets its share, and a tenth of the ranks three quarters of all.
func TestZipf(t *testing.T) {
	const n, draws = 10_000, 200_000
	e, err := NewEnv(nil, Sizes{Keys: n, ValueBytes: 1, WatchRate: 1, IdleWatchers: 1, CatchUp: 1, Leases: 1}, 1)
	require.NoError(t, err)
	count := make([]int, n)
	for i := range draws {
		count[e.Popular(i)]++
	}
	tenth := 0
	for _, c := range count[:n/10] {
		tenth += c
	}
	require.InDelta(t, 0.1, float64(count[0])/draws, 0.01)
	require.InDelta(t, 0.77, float64(tenth)/draws, 0.03)
	require.Greater(t, count[0], count[1])
}

func TestYCSBMixesAreWhole(t *testing.T) {
	for _, m := range ycsbMixes() {
		require.Equal(t, 100, m.read+m.update+m.insert+m.scan+m.modify, m.letter)
	}
}

// With a grain operations begin together, none is left out, and each is as late as it is.
func TestWhatIsDueInAGrainBeginsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		turns := make(map[time.Duration]int)
		var due []time.Time
		pace(t.Context(), 50_000, time.Millisecond, start, start.Add(10*time.Millisecond), func(at time.Time) {
			turns[time.Since(start)]++
			due = append(due, at)
		})
		require.Len(t, due, 500)
		for i, at := range due {
			require.Equal(t, start.Add(time.Duration(i)*20*time.Microsecond), at)
		}
		require.LessOrEqual(t, len(turns), 11)
	})
}

// Few operations a second leave long times in which nothing was due. Those are no silence.
func TestSilenceIsTheLongestTimeInWhichOperationsWaited(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	op := func(due, end int) Sample { return Sample{Due: ms(due), Took: ms(end - due)} }
	failed := func(due, end int) Sample { return Sample{Due: ms(due), Took: ms(end - due), Err: "x"} }
	for _, c := range []struct {
		name   string
		trace  Trace
		wanted time.Duration
	}{
		{"nothing", nil, 0},
		{"one after the other", Trace{op(500, 505), op(100, 110)}, ms(10)},
		{"one overtakes another", Trace{op(100, 190), op(120, 150)}, ms(50)},
		{"all wait", Trace{op(100, 180), op(130, 181), op(170, 182)}, ms(80)},
		{"a failure is no answer", Trace{op(100, 180), failed(110, 140)}, ms(80)},
		{"a failure alone", Trace{failed(100, 140), op(300, 301)}, ms(40)},
		{"from before", Trace{op(0, 30)}, ms(20)},
		{"until after", Trace{op(970, 1200)}, ms(30)},
		{"before and after", Trace{op(0, 5), op(1100, 1300)}, 0},
	} {
		require.Equal(t, c.wanted, c.trace.Silence(ms(10), ms(1000)), c.name)
	}
}
