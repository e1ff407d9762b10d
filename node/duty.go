package node

import "github.com/flotilla-kv/flotilla/shard"

// situation is what a node knows of a shard of which it should have a replica.
type situation struct {
	// By the table:
	shard     *shard.Descriptor
	splitOff  bool // it is being split off from another one, and told nothing yet
	reshaping bool // a split or merge of it is under way
	disputed  bool
	compacted shard.Revision

	// blocked says that a replica taken away from the node must be removed before this one starts.
	blocked bool

	// Of the replica, if it runs:
	running bool
	leads   bool
	weaned  bool // its log does not go back to before what gave the shard its keys
	view    shard.View

	// Of one that leads:
	unfit    bool          // it serves nothing
	clockOff bool          // its node may not propose
	merging  bool          // the table knows of the merge that froze the shard
	rightful shard.Replica // that is well and should lead instead; ID 0 for none
}

// duty is what a node has to do next for its replica of a shard. Each may be repeated.
type duty int

const (
	dutyNone    duty = iota
	dutyStart        // start the replica
	dutyWean         // cut its log behind an operator that ended without it
	dutyResign       // have any other replica lead
	dutyThaw         // have the shard serve again: its merge was given up
	dutyInit         // tell the shard its first descriptor
	dutyUpdate       // tell it who its replicas are by now
	dutyCompact      // tell it how far history is compacted
	dutyYield        // have the rightful replica lead
)

// duty decides. The order matters: what makes a replica safe comes before what only its leader may
// do; a leader that may not propose can only resign; a shard that is frozen, or has no descriptor
// yet, accepts no other command than the one that ends that.
func (s situation) duty() duty {
	switch has := s.view.Descriptor; {
	case !s.running && s.blocked:
		return dutyNone
	case !s.running:
		return dutyStart
	case s.splitOff: // until its operator is done with it
		if s.leads && s.unfit {
			return dutyResign
		}
		return dutyNone
	case has != nil && !s.weaned && !s.reshaping:
		return dutyWean
	case !s.leads:
		return dutyNone
	case s.unfit, s.clockOff:
		return dutyResign
	case s.view.Frozen != nil && s.merging:
		return dutyNone
	case s.view.Frozen != nil:
		return dutyThaw
	case has == nil:
		return dutyInit
	case has.Generation < s.shard.Generation && has.Epoch == s.shard.Epoch: // another epoch comes with a split or merge only
		return dutyUpdate
	case s.view.Compacted < s.compacted:
		return dutyCompact
	case s.rightful.ID != 0:
		return dutyYield
	default:
		return dutyNone
	}
}
