package apply

import (
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/lease"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

const (
	// leaseTTLMax is etcd's, in seconds. Such durations do not overflow.
	leaseTTLMax = 9_000_000_000
	// detachKeysMax bounds the keys that one command deletes: a lease may have any number, and the
	// apply worker serves other shards too.
	detachKeysMax = 1000
)

// lease executes a lease command (docs/decisions/0007-leases.md).
func (w *writing) lease(cmd *shardpb.Command) (proto.Message, error) {
	var req shardpb.LeaseCommand
	if err := decode(cmd, &req); err != nil {
		return nil, err
	}
	switch cmd.Kind {
	case shardpb.Kind_LEASE_REIGN:
		reign, will := w.leases.BeginReign()
		return &shardpb.LeaseAnswer{Reign: reign, Will: will}, nil
	case shardpb.Kind_LEASE_BEQUEATH:
		return w.leaseBequeath(&req)
	}
	if req.Lease == 0 {
		return nil, malformed("%s without a lease", cmd.Kind)
	}
	switch cmd.Kind {
	case shardpb.Kind_LEASE_REGISTER:
		return w.leaseRegister(&req)
	case shardpb.Kind_LEASE_DETACH:
		return w.leaseDetach(&req)
	}
	if !w.isHome(req.Lease) {
		return nil, wrongShard(w.id, w.view)
	}
	rec := w.leases.Record(req.Lease)
	switch cmd.Kind {
	case shardpb.Kind_LEASE_GRANT:
		return w.leaseGrant(rec, &req)
	case shardpb.Kind_LEASE_ATTACH:
		return w.leaseAttach(rec, &req)
	case shardpb.Kind_LEASE_REVOKE:
		return w.leaseRevoke(rec, &req)
	default: // the caller lets nothing else through
		return w.leaseForget(rec, &req)
	}
}

// leaseBequeath stores the will of a reign for the next one, unless that has begun.
func (w *writing) leaseBequeath(req *shardpb.LeaseCommand) (proto.Message, error) {
	if !lease.WellFormed(req.Will) {
		return nil, malformed("will of format %d for %d leases, with the time of %d", req.Will.GetFormat(), len(req.Will.GetLeases()), len(req.Will.GetLeftMs()))
	}
	if !w.leases.Bequeath(req.Will) {
		return nil, refuse(shard.ErrLeaseRace)
	}
	return &shardpb.LeaseAnswer{}, nil
}

// leaseGrant creates a record. Its incarnation is a revision, so that it exceeds that of every
// earlier lease with the ID; like a revision it raises the floor.
func (w *writing) leaseGrant(rec *lease.Record, req *shardpb.LeaseCommand) (proto.Message, error) {
	if req.Ttl < 1 || req.Ttl > leaseTTLMax {
		return nil, malformed("a lease of %d seconds", req.Ttl)
	}
	if rec != nil {
		return nil, refuse(shard.ErrLeaseExists)
	}
	w.view.Floor = w.rev
	rec = &lease.Record{ID: req.Lease, TTL: req.Ttl, Incarnation: int64(w.rev)}
	w.leases.Set(rec)
	return &shardpb.LeaseAnswer{Ttl: rec.TTL, Incarnation: rec.Incarnation}, nil
}

// leaseAttach adds to a lease's spans, before the keys' shard registers the lease (L1, L2).
func (w *writing) leaseAttach(rec *lease.Record, req *shardpb.LeaseCommand) (proto.Message, error) {
	span, err := spanOf(req)
	if err != nil {
		return nil, err
	}
	if rec == nil || rec.Revoking { // L4
		return nil, refuse(shard.ErrLeaseNotFound)
	}
	w.leases.Set(rec.Attach(span))
	return &shardpb.LeaseAnswer{Ttl: rec.TTL, Incarnation: rec.Incarnation}, nil
}

// leaseRevoke marks a lease. If all attached keys are in this shard, it also deletes them and the
// record.
func (w *writing) leaseRevoke(rec *lease.Record, req *shardpb.LeaseCommand) (proto.Message, error) {
	if rec == nil {
		return nil, refuse(shard.ErrLeaseNotFound)
	}
	// A lease that expired in an earlier reign was renewed by the beginning of this one; another
	// incarnation is gone.
	if req.Reign != 0 && req.Reign != w.leases.Reign() || req.Incarnation != 0 && req.Incarnation != rec.Incarnation {
		return nil, refuse(shard.ErrLeaseRace)
	}
	rec = rec.Revoke()
	w.leases.Set(rec)
	answer := &shardpb.LeaseAnswer{Ttl: rec.TTL, Incarnation: rec.Incarnation}
	span := w.view.Descriptor.Span
	if !rec.Within(span) {
		answer.Spans = lease.SpansProto(rec.Spans)
		return answer, nil
	}
	if len(rec.Spans) > 0 {
		if err := w.detach(rec.ID, span, answer); err != nil {
			return nil, err
		}
	}
	if !answer.More {
		w.leases.Drop(rec.ID)
		answer.Gone = true
	}
	return answer, nil
}

// leaseForget deletes a record once no key is attached any more (L4), which the caller has ensured.
// For an earlier lease with the ID it is a late duplicate.
func (w *writing) leaseForget(rec *lease.Record, req *shardpb.LeaseCommand) (proto.Message, error) {
	if rec == nil || req.Incarnation < rec.Incarnation {
		return &shardpb.LeaseAnswer{}, nil
	}
	if !rec.Revoking || req.Incarnation != rec.Incarnation {
		return nil, refuse(shard.ErrLeaseRace)
	}
	w.leases.Drop(rec.ID)
	return &shardpb.LeaseAnswer{}, nil
}

// leaseRegister allows keys to be attached, unless keys of such leases were detached since the
// fence was returned (L6). That the record covers this shard's span follows from the command's
// epoch: ATTACH named the span that belongs to it (L2). At its own home no lease is registered like
// this: a put does it.
func (w *writing) leaseRegister(req *shardpb.LeaseCommand) (proto.Message, error) {
	if req.Incarnation <= 0 {
		return nil, malformed("registration of lease %x without an incarnation", req.Lease)
	}
	detached := req.Fence != w.leases.Fence(req.Lease) && !w.knobs.AnyFence
	if w.isHome(req.Lease) || detached || req.Incarnation < w.leases.Newest(req.Lease) {
		return nil, refuse(shard.ErrLeaseRace)
	}
	w.leases.Register(req.Lease, req.Incarnation)
	return &shardpb.LeaseAnswer{Incarnation: req.Incarnation}, nil
}

// leaseDetach deletes the attached keys of a span. For an earlier lease with the ID than the
// registered one it is a late duplicate: that one's keys are gone.
func (w *writing) leaseDetach(req *shardpb.LeaseCommand) (proto.Message, error) {
	span, err := spanOf(req)
	if err != nil {
		return nil, err
	}
	if !w.view.Descriptor.Span.ContainsSpan(span) {
		return nil, wrongShard(w.id, w.view)
	}
	answer := &shardpb.LeaseAnswer{}
	if req.Incarnation < w.leases.Newest(req.Lease) {
		return answer, nil
	}
	return answer, w.detach(req.Lease, span, answer)
}

// detach ends the registration before it deletes keys, so that from the first of several commands
// on no key is added to the remaining ones. It deletes in key order, at one revision.
func (w *writing) detach(id int64, span shard.Span, answer *shardpb.LeaseAnswer) error {
	w.leases.Detach(id)
	keys, err := w.attachedTo(id, span, detachKeysMax+1)
	if err != nil {
		return err
	}
	if len(keys) > detachKeysMax {
		keys, answer.More = keys[:detachKeysMax], true
	}
	for _, key := range keys {
		if err := w.w.Delete(key); err != nil {
			return err
		}
	}
	answer.Deleted = int64(len(keys))
	return nil
}

func spanOf(req *shardpb.LeaseCommand) (shard.Span, error) {
	s := shard.Span{Start: req.GetSpan().GetStart(), End: req.GetSpan().GetEnd()}
	if req.Span == nil || s.Empty() {
		return shard.Span{}, malformed("lease %x: an empty span", req.Lease)
	}
	return s, nil
}
