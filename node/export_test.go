package node

import (
	"context"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// Hears reports whether a node answered when this one asked it last.
func (n *Node) Hears(id shard.NodeID) bool { return n.health.answers(id) }

// MoveSteps are the steps of a MOVE from a node to another, in their order.
func MoveSteps() []string {
	return []string{
		stepAdopt, stepAdmit, stepCatchUp, stepStart, stepPromote, stepPublish,
		stepPrefer, stepYield, stepDismiss, stepSpread, stepDrop, stepFinish,
	}
}

// SplitSteps are the steps of a SPLIT.
func SplitSteps() []string {
	return []string{stepGrow, stepCommit, stepDivide, stepLeave, stepBegin, stepSeeded, stepSecure, stepWean, stepSettle}
}

// MergeSteps are the steps of a MERGE.
func MergeSteps() []string {
	return []string{stepBrace, stepFreeze, stepSecureFrozen, stepCede, stepSubsume, stepSealed, stepMerged}
}

// Ended are the nodes whose process has, as far as this one can tell.
func (n *Node) Ended() []uint64 { return n.departed.all() }

// Guarded reports whether the node acts only on recent copies of the placement table.
func (n *Node) Guarded() bool { return !n.access.guard.Open() }

// HandOverMeta has another replica lead the meta group, which this node leads.
func (n *Node) HandOverMeta(ctx context.Context, to shard.Replica) error {
	return n.meta.handOver(ctx, to)
}

// Heir is a replica, on any node, to whom this node would hand a shard over.
func (n *Node) Heir(id shard.ID, of shard.Replica) replica.Heir {
	return &heir{Replica: of, node: n, shard: id}
}
