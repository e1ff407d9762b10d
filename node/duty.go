package node

import "github.com/flotilla-kv/flotilla/shard"

// situation is what a node knows about a shard of which it should have a replica.
type situation struct {
	// From the table:
	shard     *shard.Descriptor
	splitOff  bool // it is being split off from another shard, and is not told anything yet
	reshaping bool // a split or merge of it is in progress
	disputed  bool
	compacted shard.Revision

	// blocked: a replica that the table took away from this node must be removed before this one starts.
	blocked bool

	// From the replica, if it runs:
	running bool
	leads   bool
	weaned  bool // its log no longer contains the operator that gave the shard its keys
	view    shard.View

	// From a replica that leads:
	unfit    bool          // it serves nothing
	clockOff bool          // its node may not propose
	merging  bool          // the merge that froze the shard is in the table
	rightful shard.Replica // the healthy replica that should lead instead; ID 0 if none
}

// duty is what a node has to do next for its replica of a shard. All duties may be repeated.
type duty int

const (
	dutyNone    duty = iota
	dutyStart        // start the replica
	dutyWean         // truncate its log past an operator that ended without it
	dutyResign       // make any other replica the leader
	dutyThaw         // make the shard serve again, because its merge was given up
	dutyInit         // give the shard its first descriptor
	dutyUpdate       // tell it its present replicas
	dutyCompact      // tell it up to which revision history is compacted
	dutyYield        // make the rightful replica the leader
)

// duty decides what is next. The order matters: what makes a replica safe comes before what only its leader may do; a
// leader that may not propose can only resign; a shard that is frozen or has no descriptor yet accepts only the
// command that ends that state.
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
	case has.Generation < s.shard.Generation && has.Epoch == s.shard.Epoch: // only a split or merge changes the epoch
		return dutyUpdate
	case s.view.Compacted < s.compacted:
		return dutyCompact
	case s.rightful.ID != 0:
		return dutyYield
	default:
		return dutyNone
	}
}
