package placement

import (
	"fmt"
	"strings"

	"github.com/flotilla-kv/flotilla/shard"
)

// Kind is what a step does.
type Kind int

// The kinds of steps. Each is whole: whoever carries it out goes all the way or
// leaves the shard as it was.
const (
	// AddReplica puts a replica on To: a learner, and a voter once it has caught up. A
	// learner that is there already is only made a voter.
	AddReplica Kind = iota + 1
	// RemoveReplica takes the replica off From. It never leads.
	RemoveReplica
	// MoveReplica is AddReplica on To, then RemoveReplica on From, so the shard never
	// has fewer voters than before. If From leads, To leads before From goes.
	MoveReplica
	// TransferLeader makes To the leader, and the shard's preferred node.
	TransferLeader
	// Split cuts the shard at Key; both halves keep its nodes.
	Split
	// Merge gives the keys of With, the right neighbour, to the shard.
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
	// Key is where Split cuts the shard, and where With begins before Merge.
	Key  []byte
	With shard.ID
	// Epoch is the one that Split and Merge give the shard. One that has another later was
	// split or merged again, or was not.
	Epoch uint64

	// Rule is the part of the plan that asks for the step.
	Rule Rule
	// Why is a sentence with the numbers that decided; Effect says what is expected.
	Why, Effect string
	// Bytes is what has to be copied.
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
	// Shards it is about, ascending; none when it is about the cluster.
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
	// Steps are in the order they should begin. Each is about other shards than the
	// others and than what is in flight, so they may run together.
	Steps []Step
	// Reasons say why nothing else is done.
	Reasons []Reason
	// Gaps are what nodes differ by now, before the steps; none when too little is known.
	Gaps []Gap
}

// Gap is by how much the node with most has more of a measure than the one with least, as
// a share of the mean.
type Gap struct {
	Measure string
	Share   float64
}
