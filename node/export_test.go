package node

import "github.com/flotilla-kv/flotilla/shard"

// Hears reports whether a node answered when this one asked it last.
func (n *Node) Hears(id shard.NodeID) bool { return n.health.answers(id) }

// MoveSteps are the steps of a MOVE from a node to another, in their order.
func MoveSteps() []string {
	return []string{
		stepAdopt, stepAdmit, stepCatchUp, stepStart, stepPromote, stepPublish,
		stepPrefer, stepYield, stepDismiss, stepDrop, stepFinish,
	}
}

// SplitSteps are the steps of a SPLIT.
func SplitSteps() []string {
	return []string{stepGrow, stepCommit, stepDivide, stepSecure, stepBegin, stepSeeded, stepWean, stepSettle}
}

// MergeSteps are the steps of a MERGE.
func MergeSteps() []string {
	return []string{stepBrace, stepFreeze, stepSecureFrozen, stepCede, stepSubsume, stepSealed, stepMerged}
}
