package scenario

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
	"github.com/flotilla-kv/flotilla/benchmarks/peer"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// renewHere has this test binary be the process that renews leases.
const renewHere = "renew"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == renewHere {
		if err := Renew(context.Background(), os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// small is a scenario of a few seconds, with real processes.
func small(t *testing.T, nodes int) Config {
	binary, err := peer.Flotilla{}.Binary(t.Context())
	require.NoError(t, err)
	return Config{
		Nodes: nodes, Shards: 2, Rate: 100, Calm: time.Second, Conns: 2 * nodes, Keys: 200, ValueBytes: 64,
		Seed: 1, Dir: t.TempDir(), Binary: binary, Log: slog.New(slog.DiscardHandler),
	}
}

func figure(t *testing.T, o Outcome, name string) Figure {
	t.Helper()
	for _, f := range o.Figures {
		if f.Name == name {
			return f
		}
	}
	require.Fail(t, "no figure "+name, "%v", o.Figures)
	return Figure{}
}

// Every change is made and seen, and no request fails.
func TestReshape(t *testing.T) {
	t.Parallel() // this and the next two mostly wait
	c := small(t, 4)
	c.Calm = 3 * time.Second / 2
	out, err := Reshape(t.Context(), c, 2)
	require.NoError(t, err)
	for _, c := range changes(2) {
		require.Zero(t, figure(t, out, c.name+": failed requests").Value, "%+v", out.Phases)
		require.Positive(t, figure(t, out, c.name+": longest request of a touched shard").Value)
	}
	require.Len(t, out.Lines[0].Marks, len(changes(2)))
	for _, name := range []string{"split: pause, as nodes tell", "split: pause, as nodes tell, median of 2", "merge: pause, as nodes tell", "transfer: pause, as nodes tell"} {
		require.Positive(t, figure(t, out, name).Value, name)
	}
}

func TestLoss(t *testing.T) {
	t.Parallel()
	c := small(t, 4)
	c.Calm = 2 * time.Second
	out, err := Loss(t.Context(), c, 5*time.Second)
	require.NoError(t, err)
	require.Positive(t, figure(t, out, "until all shards had 3 healthy replicas").Value)
	require.Zero(t, figure(t, out, "failed requests to others").Value)
}

func TestShift(t *testing.T) {
	t.Parallel()
	out, err := Shift(t.Context(), small(t, 3), Shifting{Every: 5 * time.Second, Times: 1, SplitWrites: 20, On: true})
	require.NoError(t, err)
	require.Zero(t, figure(t, out, "balancer on: failed requests").Value)
	require.Positive(t, figure(t, out, "balancer on, place 1: busiest node at the end, of the mean").Value)
}

func TestScale(t *testing.T) {
	out, err := Scale(t.Context(), small(t, 3), Scaling{Shards: []int{1, 4}, Clients: []int{4}, Idle: time.Second})
	require.NoError(t, err)
	require.Len(t, out.Costs, 4, "one shard is measured once")
	for i, c := range out.Costs {
		require.Equal(t, []int{1, 4}[i/2], c.Shards)
		require.Equal(t, []string{"put", "get"}[i%2], c.Workload)
		require.Equal(t, 4, c.Clients)
		require.Positive(t, c.PerSecond)
		require.Positive(t, c.OfOne)
	}
	require.Positive(t, figure(t, out, "4 shards: stopped and started, until all are whole").Value)
}

func TestOverload(t *testing.T) {
	out, err := Overload(t.Context(), small(t, 3), Overloading{
		Factor: 2, For: time.Second, Clients: 4, Finders: 4, Renewer: []string{os.Args[0], renewHere},
	})
	require.NoError(t, err)
	require.Positive(t, figure(t, out, "goodput under overload").Value)
	require.Positive(t, figure(t, out, "lease renewals under overload: p99").Value)
	require.Positive(t, figure(t, out, "most resident memory of all servers").Value)
}

func TestResidentMemory(t *testing.T) {
	seen := residents{{time.Second, 10}, {2 * time.Second, 30}, {3 * time.Second, 20}}
	require.Equal(t, int64(30), seen.most())
	require.Equal(t, int64(20), seen.mean(time.Second, 3*time.Second))
	require.Equal(t, int64(20), seen.mean(3*time.Second, time.Hour))
	require.Zero(t, seen.mean(time.Minute, time.Hour))
}

func TestWhatCannotBePlayedIsRefused(t *testing.T) {
	c := Config{Nodes: 3, Shards: 1, Rate: 1, Conns: 1, Calm: time.Second}
	ctx := context.Background()
	_, err := Reshape(ctx, c, 1)
	require.ErrorContains(t, err, "4 nodes")
	_, err = Loss(ctx, c, time.Second)
	require.ErrorContains(t, err, "4 nodes")
	_, err = Shift(ctx, c, Shifting{})
	require.ErrorContains(t, err, "at least 5 s")
	_, err = Scale(ctx, c, Scaling{})
	require.ErrorContains(t, err, "number of shards")
	_, err = Overload(ctx, c, Overloading{Factor: 1})
	require.ErrorContains(t, err, "above 1")
	_, err = Reshape(ctx, Config{Nodes: 4, Shards: 1, Rate: 1, Conns: 1}, 1)
	require.ErrorContains(t, err, "calm")
	require.ErrorContains(t, Config{}.Validate(), "at least 1")
}

func TestVerdicts(t *testing.T) {
	at := func(v float64, b *Bound) string { return Figure{Value: v, Bound: b}.Verdict() }
	require.Empty(t, at(1, nil))
	require.Equal(t, "goal met", at(10, atMost(50, 10)))
	require.Equal(t, "must met", at(50, atMost(50, 10)))
	require.Equal(t, "MUST MISSED", at(51, atMost(50, 10)))
	require.Equal(t, "goal met", at(90, atLeast(90)))
	require.Equal(t, "MUST MISSED", at(89, atLeast(90)))
}

// Two nodes lead one key each; from the second second on, one leads both.
func TestBusiestGoesByWhoLedWhenItWasDue(t *testing.T) {
	led := func(left, right string) []*adminpb.Shard {
		return []*adminpb.Shard{
			{Span: &adminpb.Span{End: []byte{0x80}}, Leader: left},
			{Span: &adminpb.Span{Start: []byte{0x80}}, Leader: right},
		}
	}
	var low, high int
	for i := range 100 {
		if load.Key(i)[0] < 0x80 {
			low = i
		} else {
			high = i
		}
	}
	var trace load.Trace
	for _, due := range []time.Duration{0, time.Second} {
		trace = append(trace, load.Sample{Due: due, Key: low}, load.Sample{Due: due, Key: high})
	}
	owners := ownership{{0, led("n1", "n2")}, {time.Second / 2, led("n1", "n1")}}
	require.Equal(t, []float64{1, 2}, owners.busiest(trace, 2))
}

func TestBalancedMeansForSomeSeconds(t *testing.T) {
	after, ok := settledAfter([]float64{3, 1, 2, 1, 1.1, 1.2, 3})
	require.True(t, ok)
	require.Equal(t, 3, after)
	_, ok = settledAfter([]float64{3, 1, 1})
	require.False(t, ok)
}

func TestRecoveryIsTheFirstSecondAsBefore(t *testing.T) {
	second := func(n int, took time.Duration) load.Sample {
		return load.Sample{Due: time.Duration(n) * time.Second, Took: took}
	}
	before := load.Trace{second(0, 10*time.Millisecond)}
	after, ok := recovery(before, load.Trace{second(0, 500*time.Millisecond), second(1, 30*time.Millisecond), second(2, 19*time.Millisecond)})
	require.True(t, ok)
	require.Equal(t, 2, after)
	_, ok = recovery(before, load.Trace{second(0, time.Second/2)})
	require.False(t, ok)
}
