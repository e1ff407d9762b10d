package replica

import (
	"github.com/lni/dragonboat/v4/raftio"

	"github.com/flotilla-kv/flotilla/shard"
)

// What an election came after.
const (
	// afterHandover: the leader handed over to this replica.
	afterHandover = "handover"
	// afterFailure: the leader was lost, so leases get their whole TTL again.
	afterFailure = "failure"
	// afterStart: this replica has not known a leader since it started.
	afterStart = "start"
)

// leadership is what a node knows of who leads a group.
type leadership struct {
	raftio.LeaderInfo
	before bool // the replica has known a leader before this one
}

// led keeps what it is told of a group's leader, and counts the elections that this node's replicas win. It is called
// for one change after the other.
func (h *Host) led(info raftio.LeaderInfo) {
	id := shard.ID(info.ShardID)
	var was leadership
	if v, ok := h.leaders.Load(id); ok {
		was = v.(leadership)
	}
	now := leadership{info, was.before || was.LeaderID != 0}
	h.cfg.Metrics.leaderChanges.Inc()
	if info.LeaderID == info.ReplicaID {
		h.cfg.Metrics.elections.WithLabelValues(h.wonAfter(now)).Inc()
	}
	h.leaders.Store(id, now) // last: whoever finds the leader finds it counted
}

func (h *Host) wonAfter(l leadership) string {
	// Only the next term is the heir's: in any later one somebody else stood, too, or its own election has failed.
	switch term, heir := h.heirs.Load(shard.ID(l.ShardID)); {
	case heir && term.(uint64)+1 == l.Term:
		return afterHandover
	case l.before:
		return afterFailure
	default:
		return afterStart
	}
}
