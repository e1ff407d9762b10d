package apply

import (
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// reserve gives the batch's proposer the revisions above the floor, up to until. Any earlier
// reservation is its own (admitReserved), and what it has promised below the old end stays valid
// (A12).
func (r *run) reserve(b *shardpb.Batch, until shard.Revision) {
	until = max(until, r.reserved())
	r.view.Reserved = &shard.Reservation{Until: until, Node: shard.NodeID(b.NodeId), Incarnation: b.Incarnation, Sequence: b.Sequence}
}

// admitReserved ends a reservation that is not the batch's proposer's (A12).
func (r *run) admitReserved(b *shardpb.Batch) {
	if s := r.view.Reserved; s != nil && !s.Holds(b) {
		r.view.Floor, r.view.Reserved = r.reserved(), nil
	}
}

// reserved is the revision above which any proposer may assign revisions.
func (r *run) reserved() shard.Revision {
	if r.view.Reserved == nil {
		return r.view.Floor
	}
	return max(r.view.Floor, r.view.Reserved.Until)
}
