package shard

import (
	"time"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// ReserveAhead is how far a reservation reaches beyond the clock of its proposer (R6): while a
// shard is asked for promises it writes one after every half of that time. What another proposer
// assigns afterwards, as soon as leadership has moved, is ahead of the clock by as much.
const ReserveAhead = Tick(250 * time.Millisecond / TickUnit)

// Reservation keeps the revisions of a shard above its floor, up to Until, for one proposer (R5):
// no other may assign one of them. Therefore the proposer's in-memory promise to assign nothing
// more at or below some revision under Until holds whoever leads next.
type Reservation struct {
	Until Revision
	// Node, Incarnation and Sequence identify the batch of the log that made the reservation.
	Node        NodeID
	Incarnation uint64
	Sequence    uint64
}

// Holds reports whether the batch comes from the proposer that holds the reservation and was made
// when that proposer knew of it.
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
