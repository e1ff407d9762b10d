package placement

import (
	"fmt"
	"strings"

	"github.com/flotilla-kv/flotilla/shard"
)

// Kind is what a step does.
type Kind int

// The kinds of steps. Each is all or nothing: it is completed, or leaves the shard as it was.
const (
	// AddReplica adds a replica on To: a learner, and a voter once it has caught up. An existing
	// learner is only promoted.
	AddReplica Kind = iota + 1
	// RemoveReplica removes the replica on From, which never leads.
	RemoveReplica
	// MoveReplica is AddReplica on To, then RemoveReplica on From, so the shard never has fewer
	// voters than before. If From leads, leadership moves to To before From is removed.
	MoveReplica
	// TransferLeader makes To the leader, and the shard's preferred node.
	TransferLeader
	// Split splits the shard at Key; both halves keep its nodes.
	Split
	// Merge merges the shard with With, its right neighbour.
	Merge
)

func (k Kind) String() string {
	switch k {
	case AddReplica:
		return "add"
	case RemoveReplica:
		return "remove"
	case MoveReplica:
		return "move"
	case TransferLeader:
		return "lead"
	case Split:
		return "split"
	case Merge:
		return "merge"
	default:
		return fmt.Sprintf("kind %d", int(k))
	}
}

// Step is one change of one shard (of two, for Merge).
type Step struct {
	Kind  Kind
	Shard shard.ID
	From  shard.NodeID
	To    shard.NodeID
	// Key is where Split splits the shard, and where With begins before Merge.
	Key  []byte
	With shard.ID
	// Epoch is the epoch that Split and Merge give the shard. A shard with a different epoch later
	// was split or merged again, or the step did not happen.
	Epoch uint64

	// Rule is the part of the plan that requests the step.
	Rule Rule
	// Why is a sentence with the numbers behind the decision; Effect says what is expected.
	Why, Effect string
	// Bytes is the amount of data to copy.
	Bytes int64
}

// Rule names a part of the plan.
type Rule string

// The parts of a plan, in the order of their priority.
const (
	RuleRepair  Rule = "repair"  // replicas: enough, alive, in different zones
	RuleSpace   Rule = "space"   // disks that fill up
	RuleLeave   Rule = "leave"   // leaders off nodes that should not lead
	RuleSplit   Rule = "split"   // shards that are too large or too busy
	RuleLeaders Rule = "leaders" // write load of leaders
	RuleData    Rule = "data"    // bytes, and write load of replicas
	RuleMerge   Rule = "merge"   // small neighbours
)

// Reason says why something was not done.
type Reason struct {
	Rule Rule
	// Shards are the shards concerned, ascending; none when the reason concerns the cluster.
	Shards []shard.ID
	Text   string
}

func (r Reason) String() string {
	if len(r.Shards) == 0 {
		return fmt.Sprintf("%s: %s", r.Rule, r.Text)
	}
	return fmt.Sprintf("%s: %s: %s", r.Rule, idList(r.Shards), r.Text)
}

// idList names a few shards and counts the rest.
func idList(ids []shard.ID) string {
	const named = 5
	if len(ids) == 1 {
		return "shard " + ids[0].String()
	}
	words := make([]string, 0, named)
	for _, id := range ids[:min(named, len(ids))] {
		words = append(words, id.String())
	}
	list := "shards " + strings.Join(words, ", ")
	if more := len(ids) - len(words); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}

// Decision is the outcome of Plan.
type Decision struct {
	// Steps are in the order in which they should start. Each concerns other shards than the others
	// and than what is in flight, so they may run together.
	Steps []Step
	// Reasons say why nothing else is done.
	Reasons []Reason
	// Gaps are the present differences between nodes, before the steps; none when too little is
	// known.
	Gaps []Gap
}

// Gap is by how much the most loaded node exceeds the least loaded one in a measure, as a share of
// the mean.
type Gap struct {
	Measure string
	Share   float64
}
