package node_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/shard"
)

// O4: the leader of four replicas dismisses one, tells that one first, and is lost before the two others know. They go
// on: the one that leaves still votes.
func TestTheDismissedVotesUntilOthersKnow(t *testing.T) {
	t.Parallel()
	stop := newInterruption()
	c := moveCluster(t, func(_ string, cfg *node.Config) { cfg.Knobs.Operator = stop.at })
	d := fourReplicas(t, c)
	leader := leaderOf(t, c, c.Node(1), "")
	rest := others(c, leader)
	if i := slices.Index(rest, metaLeader(t, c)); i >= 0 { // it must hear of the leader's answer
		rest[0], rest[i] = rest[i], rest[0]
	}
	slow, cut, leaving := rest[0], rest[1], rest[2]

	stop.before(node.MoveSteps()[8])
	beginMove(t, c.Node(1), d.ID, id(leaving), 0)
	stop.await(t, c)
	c.Network().Delay(leader.Name, slow.Name, 400*time.Millisecond) // it hears of the commit so long after it has made it possible
	c.Network().Cut(leader.Name, cut.Name)
	close(stop.resume)
	testcluster.Until(t, "the leader to have dismissed the replica", func() bool { return membersOf(leader, d.ID) == 3 })
	c.Network().Isolate(leader.Name, slow.Name, cut.Name, leaving.Name)
	put(t, c.Client(t, cut), "k", "v")
	c.Network().Heal()
	requireMoved(t, cut, d.ID, id(leaving), 0)
	requireHolds(t, leaving, d.ID)
	requireSameMembers(t, c, d.ID)
	requireValue(t, c.Client(t, leader), "k", "v")
}

// O4: the table drops a replica, whose node then removes it, when most of those that stay know of its dismissal.
func TestTheTableDropsWhatTheOthersKnow(t *testing.T) {
	t.Parallel()
	stop := newInterruption()
	c := moveCluster(t, func(_ string, cfg *node.Config) { cfg.Knobs.Operator = stop.at })
	d := fourReplicas(t, c)
	leader := leaderOf(t, c, c.Node(1), "")
	testcluster.Eventually(t, "the shard's leader to be the controller", func(ctx context.Context) error {
		meta := metaLeader(t, c)
		if meta == leader {
			return nil
		}
		own, _ := metaGroup(meta).ReplicaOn(id(leader))
		return cmp.Or(meta.Inside().HandOverMeta(ctx, own), errors.New("it has been asked to let another lead"))
	})
	stay := others(c, leader)
	leaving := stay[2]
	stay = stay[:2]

	stop.before(node.MoveSteps()[8])
	beginMove(t, leader, d.ID, id(leaving), 0)
	stop.await(t, c)
	for _, n := range stay {
		c.Network().Delay(leader.Name, n.Name, 150*time.Millisecond)
	}
	resumed := stop.resume
	stop.before(node.MoveSteps()[10])
	close(resumed)
	require.Same(t, leader, stop.await(t, c))
	require.True(t, slices.ContainsFunc(stay, func(n *testcluster.Node) bool { return membersOf(n, d.ID) == 3 }))
	require.Equal(t, 4, membersOf(leaving, d.ID), "it still votes")
	c.Network().Heal()
	close(stop.resume)
	requireMoved(t, leader, d.ID, id(leaving), 0)
	requireHolds(t, leaving, d.ID)
}

// fourReplicas gives the cluster's only shard a replica on each of four nodes.
func fourReplicas(t *testing.T, c *testcluster.Cluster) *shard.Descriptor {
	t.Helper()
	d := theShard(c.Node(1))
	beginMove(t, c.Node(1), d.ID, 0, id(c.Node(4)))
	requireMoved(t, c.Node(1), d.ID, 0, id(c.Node(4)))
	return theShard(c.Node(1))
}

// membersOf is how many voters the group has as far as the node's replica has applied.
func membersOf(at *testcluster.Node, of shard.ID) int {
	info := at.Inside().Host().NodeHost().GetNodeHostInfo(dragonboat.NodeHostInfoOption{SkipLogInfo: true})
	i := slices.IndexFunc(info.ShardInfoList, func(s dragonboat.ShardInfo) bool { return s.ShardID == uint64(of) })
	return len(info.ShardInfoList[i].Replicas)
}
