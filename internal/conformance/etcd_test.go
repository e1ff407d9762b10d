//go:build etcd

package conformance_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/benchmarks/peer"
	"github.com/flotilla-kv/flotilla/internal/conformance"
)

var (
	etcdPath = flag.String("etcd", "", "binary of etcd "+peer.EtcdVersion+" (default: build it)")
	endpoint = flag.String("endpoint", "", "ask this server instead of starting an etcd; its data is lost")
	record   = flag.Bool("record", false, "write what etcd answers to testdata instead of comparing")
)

// TestEtcd replays the recordings against the etcd they came from, which shows that
// what they hold is what etcd says, and not what it once happened to say. Three
// nodes show that nothing depends on which node is asked.
func TestEtcd(t *testing.T) {
	if *endpoint != "" {
		conformance.Replay(t, *endpoint, nil)
		return
	}
	if *record {
		require.NoError(t, conformance.Record(t.Context(), start(t, 1), "testdata"))
		return
	}
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("nodes=%d", nodes), func(t *testing.T) {
			conformance.Replay(t, start(t, nodes), nil)
		})
	}
}

// TestEtcdWatches records, or replays, what an etcd sends over a watch stream. A server
// that is given must not have the script's keys.
func TestEtcdWatches(t *testing.T) {
	at := *endpoint
	if at == "" {
		at = start(t, 1)
	}
	got, err := conformance.Watches(t.Context(), at)
	require.NoError(t, err)
	if *record {
		require.NoError(t, os.WriteFile(watchRecording, []byte(got), 0o644))
	}
	requireWatches(t, got)
}

// start returns the address of the last node of a fresh etcd.
func start(t *testing.T, nodes int) string {
	t.Helper()
	cluster, err := peer.Start(t.Context(), peer.Etcd{Path: *etcdPath}, peer.Options{Nodes: nodes, Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cluster.Stop()) })
	return cluster.Endpoints()[nodes-1]
}
