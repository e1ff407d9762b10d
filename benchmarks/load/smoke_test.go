package load

import (
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// The flag package wants its variables before the tests run; nothing else changes it.
var endpointsFlag = flag.String("endpoints", "", "run the workloads on these servers instead of a cluster")

// TestWorkloads runs every workload for a moment: each must get its answers, and no
// errors.
func TestWorkloads(t *testing.T) {
	workloads := []Workload{
		closed{looped: list{name: "list", keys: 20, groups: 2, clients: 2}},
		closed{looped: list{name: "list in pages", keys: 20, groups: 2, clients: 2, page: 7}},
		closed{looped: list{name: "list as a stream", keys: 20, groups: 2, clients: 2, stream: true}},
	}
	for _, w := range Workloads() {
		if !strings.HasPrefix(w.Name(), "list-") {
			workloads = append(workloads, w)
		}
	}
	grown, err := Grown([]Workload{closed{looped: get{name: "get"}}}, []int{300, 1000})
	require.NoError(t, err)
	workloads = append(workloads, grown...) // last: the keyspace stays large
	endpoints := strings.Split(*endpointsFlag, ",")
	if *endpointsFlag == "" {
		endpoints = testcluster.Start(t, testcluster.Options{Splits: "uniform:4"}).Endpoints()
	}
	conns, err := Connect(t.Context(), endpoints, 4)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, Disconnect(conns)) })
	e, err := NewEnv(conns, Sizes{Keys: 50, ValueBytes: 64, WatchRate: 50, IdleWatchers: 20, CatchUp: 100, Leases: 10}, 1)
	require.NoError(t, err)
	e.Native = *endpointsFlag == ""
	var held int64
	for _, w := range workloads {
		t.Run(w.Name(), func(t *testing.T) {
			got, err := Run(t.Context(), w, e, Plan{Clients: 4, Duration: 300 * time.Millisecond})
			require.NoError(t, err)
			require.Empty(t, got.Errors)
			if g, ok := w.(growth); ok {
				held += got.Operations
				require.EqualValues(t, g.keys, held)
			}
			require.Positive(t, got.Latency.Max, "something began in the window and ended well")
		})
	}
}
