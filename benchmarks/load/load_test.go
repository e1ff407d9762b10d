package load

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Uniform splits must get even load: every eighth of the keyspace is chosen by
// about an eighth of the keys.
func TestKeysSpreadEvenly(t *testing.T) {
	const keys, shards = 8000, 8
	var count [shards]int
	seen := map[string]bool{}
	for i := range keys {
		k := sharedKeys.key(i)
		require.GreaterOrEqual(t, len(k), keyBytesMin)
		require.LessOrEqual(t, len(k), keyBytesMax)
		require.False(t, seen[k])
		seen[k] = true
		count[int(k[0])*shards/256]++
	}
	for _, n := range count {
		require.InDelta(t, keys/shards, n, keys/shards/10)
	}
}

func TestRecorderCountsByWindow(t *testing.T) {
	start := time.Unix(1000, 0)
	w := window{start: start, end: start.Add(10 * time.Second)}
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	r := newRecorder()
	r.add(0, w, at(-2), at(-1), nil)           // warm-up
	r.add(1, w, at(-1), at(1), nil)            // throughput only
	r.add(2, w, at(1), at(1.5), nil)           // both
	r.add(3, w, at(9), at(12), nil)            // latency only
	r.add(4, w, at(10), at(11), nil)           // too late
	r.add(5, w, at(2), at(3), errors.New("x")) // an error only
	r.add(6, w, at(2), at(3), status.Error(codes.Unavailable, "gone"))
	got := r.result(w)
	require.Equal(t, int64(2), got.Operations)
	require.InDelta(t, 0.2, got.PerSecond, 1e-9)
	require.Equal(t, map[string]int64{"x": 1, "Unavailable": 1}, got.Errors)
	require.Equal(t, int64(2), got.ErrorCount())
	require.InDelta(t, 3_000_000, got.Latency.Max, 3000)
	require.InDelta(t, 500_000, got.Latency.P50, 500)
}

func TestNamed(t *testing.T) {
	got, err := Named([]string{"put1", "list", "lease-grant"})
	require.NoError(t, err)
	var names []string
	for _, w := range got {
		names = append(names, w.Name())
	}
	require.Equal(t, []string{"put1", "list-100", "list-1000", "list-100k", "list-100k-pages", "list-100k-stream", "lease-grant"}, names)
	_, err = Named([]string{"delete"})
	require.ErrorContains(t, err, `unknown workload "delete": know put, get`)
	require.Equal(t, 1, got[0].Clients(1000))
	require.Equal(t, listClientsMax, got[1].Clients(1000))
}

// fake is a workload that needs no server.
type fake struct{ op Operation }

func (fake) Name() string                        { return "fake" }
func (fake) About() string                       { return "" }
func (fake) Clients(want int) int                { return want }
func (fake) Prepare(context.Context, *Env) error { return nil }
func (f fake) Client(*Env, int) Operation        { return f.op }

func TestRunMeasuresAClosedLoop(t *testing.T) {
	const each = 5 * time.Millisecond
	var marks []string
	got, err := Run(t.Context(), closed{looped: fake{func(ctx context.Context) error { pause(ctx, each); return nil }}}, &Env{}, Plan{
		Clients: 4, WarmUp: 20 * time.Millisecond, Duration: 200 * time.Millisecond,
		Begin: func() error { marks = append(marks, "begin"); return nil },
		End:   func() error { marks = append(marks, "end"); return nil },
	})
	require.NoError(t, err)
	require.Equal(t, []string{"begin", "end"}, marks)
	require.Positive(t, got.Operations)
	// A client can't do more than one operation after the other.
	require.LessOrEqual(t, got.Operations, int64(4*(200/5+1)))
	require.GreaterOrEqual(t, got.Latency.P50, each.Microseconds())
	require.Empty(t, got.Errors)
}

func TestRunStopsWhenCountersFail(t *testing.T) {
	broken := errors.New("no counters")
	_, err := Run(t.Context(), closed{looped: fake{func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}}, &Env{}, Plan{
		Clients: 2, Duration: time.Hour, Begin: func() error { return broken },
	})
	require.ErrorIs(t, err, broken)
}

func TestEnvRefusesWhatItCannotDo(t *testing.T) {
	_, err := NewEnv(nil, Sizes{ValueBytes: 256}, 1)
	require.ErrorContains(t, err, "at least 1 key")
	_, err = NewEnv(nil, Sizes{Keys: 1, ValueBytes: noiseBytes}, 1)
	require.ErrorContains(t, err, "value of 1 to")
}
