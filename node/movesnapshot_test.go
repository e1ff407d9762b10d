package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
)

// requireSending waits until some node has begun to send a snapshot.
func requireSending(t *testing.T, c *testcluster.Cluster) {
	t.Helper()
	testcluster.Eventually(t, "a snapshot to be sent", func(context.Context) error {
		for _, n := range c.Nodes() {
			for _, line := range strings.Split(metricsOf(t, n), "\n") {
				sent, is := strings.CutPrefix(line, "flotilla_shard_snapshot_sent_bytes_total ")
				if is && sent != "0" {
					return nil
				}
			}
		}
		return errors.New("none is")
	})
}

func metricsOf(t *testing.T, n *testcluster.Node) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.ClientAddr()+"/metrics", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(body)
}

// A snapshot on its way ends with its sender or its receiver, at once, and is sent again.
func TestMoveGoesOnAfterASnapshotWasCutOff(t *testing.T) {
	t.Parallel()
	stop := newInterruption()
	crawl := func(_ string, cfg *node.Config) {
		// The log alone does not do, and all of it would take minutes.
		cfg.RaftLogEntries, cfg.SnapshotRate, cfg.Knobs.Operator = 100, 10<<10, stop.at
	}
	c := moveCluster(t, crawl)
	first, fourth := c.Node(1), c.Node(4)
	value := strings.Repeat("v", 8<<10)
	for i := range 150 {
		put(t, c.Client(t, first), fmt.Sprintf("k/%03d", i), value)
	}
	d := theShard(first)
	from := id(leaderOf(t, c, first, ""))
	stop.before(node.MoveSteps()[2]) // the group has the learner
	beginMove(t, first, d.ID, from, id(fourth))
	stop.await(t, c)
	close(stop.resume)
	requireSending(t, c)
	fourth.Restart(t)
	for _, n := range c.Nodes() {
		n.Edit(func(cfg *node.Config) { cfg.SnapshotRate = 0 })
	}
	c.StopAll()
	c.StartAll(t)
	requireMoved(t, first, d.ID, from, c.Node(4).Inside().ID())
	requireSameMembers(t, c, d.ID)
	got, err := c.Client(t, fourth).Get(t.Context(), "k/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	require.NoError(t, err)
	require.EqualValues(t, 150, got.Count)
}
