package node_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// The meta group's leader is asked to let another lead, dies with its node, and is cut off,
// while every node has the placement table changed: each change is made, and once. The time
// for a proposal never ends here, so it is not by that that a lost one is noticed.
func TestTheTableChangesWhileItsLeaderDoes(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Edit: func(_ string, cfg *node.Config) { cfg.ProposalTimeout = time.Hour }})
	c.Add().Start(t) // it has no replica of the meta group
	changes := make([]*changer, len(c.Nodes()))
	for i, n := range c.Nodes() {
		changes[i] = &changer{name: n.Name}
	}
	all := func(except *testcluster.Node) (at []*changer) {
		for i, n := range c.Nodes() {
			if n != except {
				changes[i].start(t, n.Inside())
				at = append(at, changes[i])
			}
		}
		return at
	}
	first := metaLeader(t, c)
	requireReads(t, c)
	before := first.Inside().Map().Version()

	working := all(nil)
	for range 8 {
		leader := metaLeader(t, c)
		d := metaGroup(leader)
		own, _ := d.ReplicaOn(id(leader))
		heir := d.Replicas[slices.IndexFunc(d.Replicas, func(r shard.Replica) bool { return r.ID != own.ID })]
		testcluster.Eventually(t, "another leader", func(context.Context) error {
			if now := metaLeader(t, c); now != leader {
				return nil
			}
			// An heir that has something to apply yet does not take the lead.
			return cmp.Or(leader.Inside().Host().NodeHost().RequestLeaderTransfer(uint64(shard.MetaID), uint64(heir.ID)), errors.New("it has been asked to let another lead"))
		})
		requireProgress(t, working)
	}
	for range 8 { // it hands over, as nodes do
		leader := metaLeader(t, c)
		d := metaGroup(leader)
		heir := d.Replicas[slices.IndexFunc(d.Replicas, func(r shard.Replica) bool { return r.Node != id(leader) })]
		testcluster.Eventually(t, "the heir to lead", func(ctx context.Context) error {
			if metaLeader(t, c) != leader {
				return nil
			}
			return leader.Inside().HandOverMeta(ctx, heir)
		})
		requireProgress(t, working)
	}
	stopAll(t, working)

	for range 3 { // it dies
		dead := metaLeader(t, c)
		working := all(dead)
		dead.Stop()
		requireProgress(t, working)
		stopAll(t, working)
		dead.Start(t)
	}

	lonely := metaLeader(t, c) // it is cut off
	var rest []string
	for _, n := range others(c, lonely) {
		rest = append(rest, n.Name)
	}
	working = all(nil)
	c.Network().Isolate(lonely.Name, rest...)
	requireProgress(t, slices.DeleteFunc(slices.Clone(working), func(w *changer) bool { return w.name == lonely.Name }))
	c.Network().Heal()
	requireProgress(t, working)
	stopAll(t, working)

	for _, m := range requireReads(t, c) {
		made := uint64(0)
		for _, w := range changes {
			value, _ := m.Setting(w.setting())
			require.Equal(t, fmt.Sprint(w.made.Load()), value)
			made += 2 * w.made.Load()
		}
		require.Equal(t, before+made, m.Version(), "each change of the table is one of those that were acknowledged, and there once")
	}
}

// changer counts up in a setting of its own by way of a node. After each time it sets one that
// all set, in which it would show that something was done twice.
type changer struct {
	name   string
	made   atomic.Uint64 // how often it did both, as acknowledged
	cancel chan struct{}
	work   sync.WaitGroup
	err    error
}

func (w *changer) setting() string { return "count/" + w.name }

func (w *changer) start(t *testing.T, n *node.Node) {
	w.cancel = make(chan struct{})
	w.work.Go(func() {
		for {
			select {
			case <-w.cancel:
				return
			default:
			}
			count := strconv.FormatUint(w.made.Load()+1, 10)
			for _, set := range []*placementpb.Command{placement.Set(w.setting(), count), placement.Set("all", w.name+" "+count)} {
				if _, err := n.Propose(t.Context(), set); err != nil {
					w.err = err
					return
				}
			}
			w.made.Add(1)
		}
	})
}

// requireProgress waits until each of them has made changes that were begun after the call.
func requireProgress(t *testing.T, working []*changer) {
	t.Helper()
	for _, w := range working {
		was := w.made.Load()
		testcluster.Until(t, "changes by way of "+w.name, func() bool { return w.made.Load() > was+1 })
	}
}

func stopAll(t *testing.T, working []*changer) {
	t.Helper()
	var errs []error
	for _, w := range working {
		close(w.cancel)
		w.work.Wait()
		errs = append(errs, w.err)
	}
	require.NoError(t, errors.Join(errs...))
}

// requireReads reads the table by way of each node, so that it has all that was acknowledged.
func requireReads(t *testing.T, c *testcluster.Cluster) (tables []*placement.Map) {
	t.Helper()
	for _, n := range c.Nodes() {
		testcluster.Eventually(t, n.Name+" to read the table", func(ctx context.Context) error {
			m, err := n.Inside().Newest(ctx)
			if err == nil {
				tables = append(tables, m)
			}
			return err
		})
	}
	return tables
}
