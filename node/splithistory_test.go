package node_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/proccluster"
	"github.com/flotilla-kv/flotilla/internal/robustness"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
)

// reshaped is a robustness.System of nodes in this process.
type reshaped struct {
	robustness.FlotillaLayout
	*testcluster.Cluster
	cuts   []string // keys at which shards may be divided
	merges bool     // and joined
	first  int      // how many shards there were at first
}

func newReshaped(c *testcluster.Cluster, cuts []string, merges bool) reshaped {
	s := reshaped{Cluster: c, cuts: cuts, merges: merges}
	s.first = s.shards()
	for _, n := range c.Nodes() {
		s.FlotillaLayout.Nodes = append(s.FlotillaLayout.Nodes, proccluster.Spec{Name: n.Name, ClientAddr: n.ClientAddr(), PeerAddr: n.PeerAddr()})
	}
	return s
}

// Kill implements robustness.System.
func (s reshaped) Kill(i int) error { s.Node(i + 1).Stop(); return nil }

// Start implements robustness.System.
func (s reshaped) Start(i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return s.Node(i + 1).Run(ctx)
}

// Pause implements robustness.System: threads of one process are not frozen.
func (s reshaped) Pause(int) error { return errors.New("not in one process") }

// Resume implements robustness.System.
func (s reshaped) Resume(int) error { return nil }

// WaitReady implements robustness.System: Start has waited.
func (s reshaped) WaitReady(context.Context) error {
	for _, n := range s.Cluster.Nodes() {
		if n.Inside() == nil {
			return fmt.Errorf("%s is down", n.Name)
		}
	}
	return nil
}

func (s reshaped) shards() int { return len(s.Node(1).Inside().Map().Shards()) }

// Settle implements robustness.System. A busy machine may have given up every change of the
// run, so they are made up for here: what is read back next was divided, and joined.
func (s reshaped) Settle(ctx context.Context) error {
	if err := s.change(ctx, s.Split, func() bool { return s.shards() > s.first }); err != nil {
		return fmt.Errorf("divide a shard: %w", err)
	}
	if many := s.shards(); s.merges {
		if err := s.change(ctx, s.Merge, func() bool { return s.shards() < many }); err != nil {
			return fmt.Errorf("join two shards: %w", err)
		}
	}
	return s.FlotillaLayout.Settle(ctx)
}

// change tries at one key after the other until it is done.
func (s reshaped) change(ctx context.Context, try func(context.Context, string) error, done func() bool) (err error) {
	for i := 0; !done(); i++ {
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		err = try(ctx, s.cuts[i%len(s.cuts)])
	}
	return nil
}

// Crashes implements robustness.System.
func (s reshaped) Crashes() []string { return nil }

// Clients that put, read, run transactions, watch and hold leases are told nothing wrong
// while shards are split and merged under them and nodes restart, also where requests go by
// maps that nobody keeps up to date.
func TestHistoriesUnderSplits(t *testing.T) {
	t.Parallel()
	for name, weights := range map[string]map[robustness.Fault]int{
		"splits":              {robustness.Split: 1},
		"splits and restarts": {robustness.Split: 2, robustness.Kill: 1},
		"merges":              {robustness.Split: 1, robustness.Merge: 1, robustness.Rejoin: 3},
		"merges and restarts": {robustness.Split: 2, robustness.Merge: 2, robustness.Rejoin: 6, robustness.Kill: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testcluster.Start(t, testcluster.Options{
				Balance: true, // a replica that missed a split is replaced
				Edit:    func(_ string, cfg *node.Config) { cfg.Knobs.StaleRoutes = name == "merges" },
			})
			audit(t, c)
			cfg := robustness.DefaultConfig(time.Now().UnixNano()%1000, 8*time.Second)
			cfg.PromptProgress, cfg.Native, cfg.Patience = true, true, 2*time.Minute
			cfg.Nemesis.Weights = weights
			cfg.Nemesis.Changes = robustness.Between{Min: 200 * time.Millisecond, Max: 600 * time.Millisecond}
			merges := weights[robustness.Merge] > 0
			res, err := robustness.Run(t.Context(), newReshaped(c, cfg.Workload.Keys.Cuts(), merges), cfg)
			require.NoError(t, err)
			t.Log(res)
			require.True(t, res.Clean())
			require.Positive(t, res.Observed.Splits)
			if merges {
				require.Positive(t, res.Observed.Merges)
			}
			requireSame(t, c)
		})
	}
}
