package compare

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
	"github.com/flotilla-kv/flotilla/benchmarks/peer"
)

func labels(systems []System) (out []string) {
	for _, s := range systems {
		out = append(out, s.Label)
	}
	return out
}

func TestSystemsAndTheirOrder(t *testing.T) {
	s, err := Systems("etcd", "flotilla", map[string]string{"etcd": "/e"}, []int{1, 8})
	require.NoError(t, err)
	require.Equal(t, peer.Etcd{Path: "/e"}, s[0].Kind)
	require.Equal(t, []string{"etcd", "flotilla/1", "flotilla/8"}, labels(order(s, 0)))
	require.Equal(t, []string{"flotilla/8", "flotilla/1", "etcd"}, labels(order(s, 1)))
	require.Equal(t, []string{"etcd", "flotilla/1", "flotilla/8"}, labels(order(s, 2)))

	same, err := Systems("etcd", "etcd", nil, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"etcd a", "etcd b"}, labels(same))

	builds, err := Systems("flotilla=/old", "flotilla", map[string]string{"flotilla": "/new"}, []int{1})
	require.NoError(t, err)
	require.Equal(t, []System{
		{Label: "flotilla a/1", Kind: peer.Flotilla{Path: "/old"}, Shards: 1},
		{Label: "flotilla b/1", Kind: peer.Flotilla{Path: "/new"}, Shards: 1},
	}, builds)

	_, err = Systems("etcd", "flotilla", nil, []int{0})
	require.ErrorContains(t, err, "0 shards")
}

func TestCostsArePerOperation(t *testing.T) {
	start := counters{servers: peer.Usage{CPU: time.Second, WrittenBytes: 1000, RSSBytes: 5}, clientCPU: time.Second,
		machine: peer.MachineTime{Busy: 10 * time.Second, All: 20 * time.Second}, fsyncs: 3, hasFsyncs: true}
	end := counters{servers: peer.Usage{CPU: 3 * time.Second, WrittenBytes: 9000, RSSBytes: 7}, clientCPU: 2 * time.Second,
		machine: peer.MachineTime{Busy: 14 * time.Second, All: 30 * time.Second}, fsyncs: 13, hasFsyncs: true}
	m := costed(Measurement{Result: load.Result{Operations: 1000}}, start, end)
	fsyncs := 0.01
	require.Equal(t, Cost{CPUPerOp: 2000, RSSBytes: 7, WrittenBytesPerOp: 8, FsyncsPerOp: &fsyncs}, m.Servers)
	require.InDelta(t, 1000, m.ClientCPUPerOp, 0)
	require.InDelta(t, 0.1, m.OtherCPU, 1e-9)

	held := costed(Measurement{Result: load.Result{Operations: 1000, Held: 4}}, start, end)
	require.InDelta(t, 0.5, *held.Servers.RSSPerHeld, 0)

	end.hasFsyncs = false
	require.Nil(t, costed(Measurement{}, start, end).Servers.FsyncsPerOp)
	require.Zero(t, costed(Measurement{}, start, end).Servers.CPUPerOp)
}

func TestValidate(t *testing.T) {
	require.ErrorContains(t, Config{}.Validate(), "nothing to measure")
	c := Config{Systems: make([]System, 1), Workloads: make([]load.Workload, 1), Rounds: 1, Nodes: 1, Clients: 1, Conns: 1}
	require.ErrorContains(t, c.Validate(), "duration")
	c.Duration = time.Second
	require.NoError(t, c.Validate())
	c.Conns = 0
	require.ErrorContains(t, c.Validate(), "at least 1")
}

// The first system could run, if only to end at once.
func TestNothingRunsIfSomethingIsNotThere(t *testing.T) {
	systems, err := Systems("etcd=/bin/false", "flotilla=/bin/nothing", nil, []int{1})
	require.NoError(t, err)
	c := Config{Systems: systems, Workloads: make([]load.Workload, 1), Rounds: 1, Nodes: 1, Clients: 1, Conns: 1, Duration: time.Second, Dir: t.TempDir()}
	log := slog.New(slog.DiscardHandler)
	require.ErrorContains(t, Run(t.Context(), c, log, nil), "flotilla/1: find the server")
	_, err = AtShare(t.Context(), c, 0.75, log, nil)
	require.ErrorContains(t, err, "flotilla/1: find the server")
}

func TestShareOfThePeak(t *testing.T) {
	for _, share := range []float64{0, -1, 1.5} {
		_, err := AtShare(t.Context(), Config{}, share, slog.New(slog.DiscardHandler), nil)
		require.ErrorContains(t, err, "above 0 and at most 1")
	}
	_, err := AtShare(t.Context(), Config{}, 0.75, slog.New(slog.DiscardHandler), nil)
	require.ErrorContains(t, err, "nothing to measure")
}
