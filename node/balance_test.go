package node_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// briskly sets rules by which the balancer looks often and believes figures soon.
func briskly(t *testing.T, n *testcluster.Node, more map[string]string) {
	t.Helper()
	// slow-disk: a few slow syncs of a node, which have other causes here, would keep replicas from it for a minute.
	rules := map[string]string{"rebalance-interval": "200ms", "settle": "1s", "stale-after": "2s", "dead-after": "5s", "slow-disk": "1m"}
	for name, value := range more {
		rules[name] = value
	}
	for name, value := range rules {
		require.Eventually(t, func() bool { // the meta group may be without a leader just now
			_, err := n.Inside().Propose(t.Context(), placement.Set(name, value))
			return err == nil
		}, 30*time.Second, 50*time.Millisecond, "set %s", name)
	}
}

// setState has the first node say what may be placed on a node.
func setState(t *testing.T, c *testcluster.Cluster, n *testcluster.Node, state placement.NodeState) {
	t.Helper()
	setStateAt(t, c, c.Node(1), n, state)
}

// setStateAt has the node given say it.
func setStateAt(t *testing.T, c *testcluster.Cluster, at, n *testcluster.Node, state placement.NodeState) {
	t.Helper()
	_, err := admin(t, c, at).SetNodeState(t.Context(), &adminpb.SetNodeStateRequest{Node: n.Name, State: state.String()})
	require.NoError(t, err)
}

// requireVoters waits until each shard has as many voters, on the nodes given only, and
// nothing goes on.
func requireVoters(t *testing.T, at *testcluster.Node, want int, on ...shard.NodeID) {
	t.Helper()
	testcluster.Eventually(t, "replicas where they belong", func(context.Context) error {
		m := at.Inside().Map()
		if ops := m.Operators(); len(ops) > 0 {
			return fmt.Errorf("operators %+v", ops[0])
		}
		for _, d := range m.Shards() {
			for _, r := range d.Replicas {
				if r.Learner || !slices.Contains(on, r.Node) {
					return fmt.Errorf("shard %s is on %v", d.ID, d.Replicas)
				}
			}
			if len(d.Replicas) != want {
				return fmt.Errorf("shard %s is on %v", d.ID, d.Replicas)
			}
		}
		return nil
	})
}

// A cluster of one node gets its replicas as nodes join, and goes on without the first.
func TestReplicasAreAddedAsNodesJoin(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Balance: true, Nodes: 1, Splits: "m"})
	client := c.Client(t, c.Node(1))
	put(t, client, "a", "1")
	put(t, client, "z", "1")
	briskly(t, c.Node(1), nil)
	c.Add().Start(t)
	c.Add().Start(t)
	requireVoters(t, c.Node(1), 3, 1, id(c.Node(2)), id(c.Node(3)))
	for _, n := range c.Nodes() {
		requireValue(t, c.Client(t, n), "a", "1")
		requireValue(t, c.Client(t, n), "z", "1")
	}
}

// A fourth node takes its share of replicas and of leaders, also when one shard has all the
// writes.
func TestAFourthNodeTakesItsShare(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Balance: true, Splits: "uniform:8", Tick: steadyTick})
	briskly(t, c.Node(1), nil)
	load := startLoad(t, c)
	fourth := c.Add()
	fourth.Start(t)
	testcluster.Eventually(t, "the fourth node to have its share", func(context.Context) error {
		if held, led := len(fourth.Inside().Map().OnNode(id(fourth))), leads(fourth); held < 4 || led < 1 {
			return fmt.Errorf("it holds %d and leads %d", held, led)
		}
		return nil
	})
	load.stop(t)
	load.requireAll(t, c.Client(t))
}

// A node that is gone for good is replaced by one that has room, and loses its replicas should it come back.
func TestADeadNodeIsReplaced(t *testing.T) {
	t.Parallel()
	c := moveCluster(t, func(_ string, cfg *node.Config) { cfg.ManualPlacement = false })
	put(t, c.Client(t), "k", "v")
	briskly(t, c.Node(1), nil)
	d := theShard(c.Node(1))
	gone := nodeOf(t, c, d.Replicas[2].Node)
	lost := id(gone)
	gone.Stop()
	var stay []shard.NodeID
	at := c.Node(1)
	for _, n := range c.Nodes() {
		if n != gone {
			stay, at = append(stay, id(n)), n
		}
	}
	requireVoters(t, at, 3, stay...)
	requireValue(t, c.Client(t, at), "k", "v")
	gone.Start(t)
	require.NotContains(t, stay, lost)
	// It may have been given another replica meanwhile: it is an empty node now.
	testcluster.Until(t, "its old replica to be removed", func() bool {
		return !slices.Contains(gone.Inside().Host().Held(), replica.Held{Shard: d.ID, Replica: d.Replicas[2].ID})
	})
}

// A node that is decommissioned loses its leaders and replicas while nobody's request fails.
func TestDecommissioningEmptiesANode(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Balance: true, Splits: "uniform:4", Tick: steadyTick})
	fourth := c.Add()
	fourth.Start(t)
	briskly(t, c.Node(1), nil)
	load := startLoad(t, c)
	setState(t, c, c.Node(3), placement.Decommissioning)
	requireVoters(t, c.Node(1), 3, id(c.Node(1)), id(c.Node(2)), id(fourth))
	load.stop(t)
	load.requireAll(t, c.Client(t))
}

// Draining takes leaders only, and an active node gets some again.
func TestDrainingTakesLeaders(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Balance: true, Splits: "uniform:6", Tick: steadyTick})
	briskly(t, c.Node(1), nil)
	load := startLoad(t, c)
	second := c.Node(2)
	setState(t, c, second, placement.Draining)
	testcluster.Until(t, "it to lead nothing", func() bool { return leads(second) == 0 })
	setState(t, c, second, placement.Active)
	testcluster.Until(t, "it to lead again", func() bool { return leads(second) > 0 })
	load.stop(t)
	load.requireAll(t, c.Client(t))
}

// A shard that is written more than allowed is split.
func TestAHotShardIsSplit(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Balance: true})
	briskly(t, c.Node(1), map[string]string{"split-writes": "20"})
	client := c.Client(t)
	testcluster.Eventually(t, "the shard to be split", func(ctx context.Context) error {
		for i := range 50 {
			if _, err := client.Put(ctx, fmt.Sprintf("k%02d", i), "v"); err != nil {
				return err
			}
		}
		if shards := c.Node(1).Inside().Map().Shards(); len(shards) < 2 {
			return fmt.Errorf("there are %d shards", len(shards))
		}
		return nil
	})
}

// A keyspace in which little happens any more loses shards by itself, down to one for each
// node to lead, and nothing of what they held. Replicas that lie elsewhere are brought
// together before.
func TestAShrunkKeyspaceLosesShards(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Balance: true})
	c.Add().Start(t)
	first, client := c.Node(1), c.Client(t)
	briskly(t, first, map[string]string{"rebalance": "off"})
	for part := range 7 {
		splitAt(t, first, spread(part+1, ""))
	}
	for i := range 8 {
		put(t, client, spread(i, "k"), fmt.Sprint(i))
	}
	briskly(t, first, map[string]string{"rebalance": "on", "merge-wait": "5s"})
	merged := func() int { return 8 - len(first.Inside().Map().Shards()) }
	testcluster.Until(t, "the first shard to go", func() bool { return merged() > 0 })
	testcluster.Until(t, "more of them to go", func() bool { return merged() > 2 })
	testcluster.Until(t, "all to go that are too many", func() bool { return merged() == 4 })
	var stay []shard.NodeID
	for _, n := range c.Nodes() {
		stay = append(stay, id(n))
	}
	requireVoters(t, first, 3, stay...)
	require.Equal(t, 4, merged(), "one is left for each node to lead")
	for i := range 8 {
		requireValue(t, client, spread(i, "k"), fmt.Sprint(i))
	}
}

// On a balanced cluster nothing is begun, and nothing is written anywhere.
func TestABalancedClusterStaysIdle(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Balance: true, Splits: "uniform:6"})
	briskly(t, c.Node(1), nil)
	api := admin(t, c, c.Node(1))
	testcluster.Eventually(t, "figures that are believed", func(ctx context.Context) error {
		reply, err := api.Shards(ctx, &adminpb.ShardsRequest{})
		if err != nil {
			return err
		}
		for _, d := range reply.Shards {
			if d.Leader != d.PreferredNode || d.MeasuredMillis < 1000 {
				return fmt.Errorf("of shard %d is told %v", d.Id, d)
			}
		}
		return nil
	})
	state := func() (applied []uint64) {
		for _, n := range c.Nodes() {
			applied = append(applied, n.Inside().Map().Version())
			for _, r := range n.Inside().Host().Loads() {
				applied = append(applied, r.Applied)
			}
		}
		return applied
	}
	was := state()
	for range 5 {
		for _, n := range c.Nodes() {
			begun, err := n.Inside().Rebalance(t.Context())
			require.NoError(t, err)
			require.Empty(t, begun)
		}
	}
	require.Equal(t, was, state())
}

// A move whose new node died before it had caught up is given up, and leaves nothing behind.
func TestAMoveToADeadNodeIsGivenUp(t *testing.T) {
	t.Parallel()
	c := moveCluster(t, func(_ string, cfg *node.Config) { cfg.ManualPlacement = false })
	first, fourth := c.Node(1), c.Node(4)
	d, dead := theShard(first), id(fourth)
	fourth.Stop()
	beginMove(t, first, d.ID, id(c.Node(2)), dead)
	briskly(t, first, nil)
	testcluster.Until(t, "the move to be given up", func() bool { return first.Inside().Map().Operator(d.ID) == nil })
	requireVoters(t, first, 3, id(first), id(c.Node(2)), id(c.Node(3)))
}

// Any node applies a plan, with what the leader of the meta group knows of who is dead, and
// any other one undoes it.
func TestAPlanIsAppliedAndUndone(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Balance: true, Splits: "uniform:6"})
	ctx, first := t.Context(), c.Node(1)
	briskly(t, first, map[string]string{"rebalance": "off", "balance-gap": "0.05"})
	leader := metaLeader(t, c)
	one, other := others(c, leader)[0], others(c, leader)[1]
	for _, d := range first.Inside().Map().Shards() {
		_, err := admin(t, c, first).Transfer(ctx, &adminpb.TransferRequest{Shard: uint64(d.ID), To: leader.Name})
		require.NoError(t, err)
	}
	testcluster.Until(t, "one node to lead all", func() bool { return leads(leader) == 6 })
	var begun []*adminpb.Step
	testcluster.Eventually(t, "steps of a plan", func(ctx context.Context) error {
		reply, err := admin(t, c, one).Rebalance(ctx, &adminpb.RebalanceRequest{})
		begun = reply.GetBegun()
		if err == nil && len(begun) == 0 {
			err = errors.New("none began")
		}
		return err
	})
	testcluster.Until(t, "it to be carried out", func() bool { return leads(leader) == 6-len(begun) })
	require.Contains(t, metricsOf(t, one), fmt.Sprintf("flotilla_balancer_steps_begun_total{step=\"lead\"} %d\n", len(begun)))
	testcluster.Until(t, "the leader of the meta group to show how things are", func() bool {
		shown := metricsOf(t, metaLeader(t, c))
		return strings.Contains(shown, "flotilla_balancer_paused 1\n") && strings.Contains(shown, `flotilla_balancer_gap_ratio{measure="shards led"} `)
	})
	reply, err := admin(t, c, other).Undo(ctx, &adminpb.UndoRequest{})
	require.NoError(t, err)
	require.Len(t, reply.Begun, len(begun))
	require.Empty(t, reply.Left)
	testcluster.Until(t, "it to be undone", func() bool { return leads(leader) == 6 })
	reply, err = admin(t, c, one).Undo(ctx, &adminpb.UndoRequest{})
	require.NoError(t, err)
	require.Empty(t, reply.Begun)
	require.Empty(t, reply.Left)
}

// A node that does not lead the meta group plans for the dead like the one that does.
func TestAnyNodeKnowsWhoIsDead(t *testing.T) {
	t.Parallel()
	c := moveCluster(t, func(_ string, cfg *node.Config) { cfg.ManualPlacement = false })
	briskly(t, c.Node(1), map[string]string{"rebalance": "off"})
	leader := metaLeader(t, c)
	holders := slices.DeleteFunc(others(c, leader), func(n *testcluster.Node) bool {
		_, has := theShard(leader).ReplicaOn(id(n))
		return !has
	})
	dead, asked := holders[0], holders[1]
	lost := dead.Name
	dead.Stop()
	testcluster.Eventually(t, "the plan of a node that never asked", func(ctx context.Context) error {
		reply, err := admin(t, c, asked).Rebalance(ctx, &adminpb.RebalanceRequest{DryRun: true})
		if err == nil && !slices.ContainsFunc(reply.Begun, func(s *adminpb.Step) bool { return s.From == lost && s.Kind == "move" }) {
			err = fmt.Errorf("it is %v", reply.Begun)
		}
		return err
	})
}
