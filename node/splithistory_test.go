package node_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/robustness"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
)

// reshaped is a robustness.System of nodes in this process, whose shards can be split.
type reshaped struct {
	robustness.Fixed
	*testcluster.Cluster
}

func (s reshaped) node(i int) *testcluster.Node { return s.Nodes()[i] }

// Kill implements robustness.System.
func (s reshaped) Kill(i int) error { s.node(i).Stop(); return nil }

// Start implements robustness.System.
func (s reshaped) Start(i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return s.node(i).Run(ctx)
}

// Pause implements robustness.System: threads of one process are not frozen.
func (s reshaped) Pause(int) error { return errors.New("not in one process") }

// Resume implements robustness.System.
func (s reshaped) Resume(int) error { return nil }

// WaitReady implements robustness.System: Start has waited.
func (s reshaped) WaitReady(context.Context) error {
	for _, n := range s.Nodes() {
		if n.Inside() == nil {
			return fmt.Errorf("%s is down", n.Name)
		}
	}
	return nil
}

// Split implements robustness.Layout.
func (s reshaped) Split(ctx context.Context, key string) error {
	return s.order(func(n *node.Node) error {
		_, err := n.Split(ctx, []byte(key), "a test")
		return err
	})
}

// Merge implements robustness.Layout.
func (s reshaped) Merge(ctx context.Context, key string) error {
	return s.order(func(n *node.Node) error {
		_, err := n.Merge(ctx, n.Map().Lookup([]byte(key)).ID, "a test")
		return err
	})
}

// order has some node do it.
func (s reshaped) order(do func(*node.Node) error) error {
	for _, n := range s.Nodes() {
		if inside := n.Inside(); inside != nil {
			return do(inside)
		}
	}
	return errors.New("all nodes are down")
}

// Crashes implements robustness.System.
func (s reshaped) Crashes() []string { return nil }

// Clients that put, read, run transactions, watch and hold leases are told nothing wrong
// while shards are split and merged under them and nodes restart.
func TestHistoriesUnderSplits(t *testing.T) {
	t.Parallel()
	for name, weights := range map[string]map[robustness.Fault]int{
		"splits":              {robustness.Split: 1},
		"splits and restarts": {robustness.Split: 2, robustness.Kill: 1},
		"merges":              {robustness.Split: 3, robustness.Merge: 2},
		"merges and restarts": {robustness.Split: 6, robustness.Merge: 4, robustness.Kill: 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := testcluster.Start(t, testcluster.Options{})
			audit(t, c)
			cfg := robustness.DefaultConfig(time.Now().UnixNano()%1000, 8*time.Second)
			cfg.PromptProgress, cfg.Native = true, true
			cfg.Nemesis.Weights = weights
			cfg.Nemesis.Changes = robustness.Between{Min: 200 * time.Millisecond, Max: 600 * time.Millisecond}
			res, err := robustness.Run(t.Context(), reshaped{Cluster: c}, cfg)
			require.NoError(t, err)
			t.Log(res)
			require.True(t, res.Clean())
			require.Greater(t, len(c.Node(1).Inside().Map().Shards()), 2)
			requireSame(t, c)
		})
	}
}
