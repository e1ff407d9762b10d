package shard

import (
	"time"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// ReserveAhead is how far a reservation reaches beyond the clock of its proposer (R6): a shard
// that is asked for promises writes one in half of that time. What another proposer mints
// after it, as soon as leadership was handed over, is ahead of the clock by so much.
const ReserveAhead = Tick(250 * time.Millisecond / TickUnit)

// Reservation keeps the revisions of a shard above its floor, up to Until, for one proposer
// (R5): no other may mint one of them. What the proposer then promises in memory, not to
// mint up to some revision below Until, holds whoever leads next.
type Reservation struct {
	Until Revision
	// Node, Incarnation and Sequence name the batch of the log that made it.
	Node        NodeID
	Incarnation uint64
	Sequence    uint64
}

// Holds reports whether the batch comes from the proposer that the reservation is for, and
// was made when that knew of it.
func (s *Reservation) Holds(b *shardpb.Batch) bool {
	return uint64(s.Node) == b.NodeId && s.Incarnation == b.Incarnation && s.Sequence == b.Reservation
}

// Proto converts it to its stored form.
func (s *Reservation) Proto() *shardpb.Reservation {
	return &shardpb.Reservation{Until: int64(s.Until), NodeId: uint64(s.Node), Incarnation: s.Incarnation, Sequence: s.Sequence}
}

// ReservationOf converts it from its stored form.
func ReservationOf(p *shardpb.Reservation) *Reservation {
	return &Reservation{Until: Revision(p.GetUntil()), Node: NodeID(p.GetNodeId()), Incarnation: p.GetIncarnation(), Sequence: p.GetSequence()}
}
