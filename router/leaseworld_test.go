package router

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// The world's leases: records at their homes, registrations and fences in shards, and the
// keys' attachments. Time is left out.

// modelLease is a record.
type modelLease struct {
	ttl         int64
	incarnation int64
	revoking    bool
	spans       []shard.Span
}

// attachment is the lease of a key's version, and which one of its ID.
type attachment struct{ id, incarnation int64 }

// leaseLife is a time during which a lease could be attached to: from the grant until it
// was marked, 0 while it lives.
type leaseLife struct {
	lease    int64
	from, to int
}

// detachedMax is small, so that a lease of a few keys takes several rounds.
const detachedMax = 2

func isLeaseKind(k shardpb.Kind) bool {
	return k >= shardpb.Kind_LEASE_GRANT && k <= shardpb.Kind_LEASE_DETACH
}

// joinLeases is what a merge makes of two shards' knowledge. Nobody may attach by it, but
// a late DETACH of an older lease must still do nothing.
func (s *modelShard) joinLeases(other *modelShard) {
	clear(s.registered)
	for lease, incarnation := range other.newest {
		s.newest[lease] = max(s.newest[lease], incarnation)
	}
	for lease, fence := range other.fences {
		s.fences[lease] = max(s.fences[lease], fence)
	}
}

func (s *modelShard) owns(key []byte) bool { return s.now().Descriptor.Span.Contains(key) }

// mayAttach tells whether a put may attach its key to a lease. Where the record is in the
// same shard, the put does what is needed itself.
func (w *world) mayAttach(s *modelShard, lease int64) (attachment, error) {
	if lease == 0 {
		return attachment{}, nil
	}
	if s.owns(shard.HomeKey(lease)) {
		record := w.leases[lease]
		if record == nil || record.revoking {
			return attachment{}, shard.ErrLeaseNotFound
		}
		record.add(s.now().Descriptor.Span)
		s.newest[lease] = record.incarnation
		return attachment{lease, record.incarnation}, nil
	}
	incarnation, ok := s.registered[lease]
	if !ok {
		return attachment{}, &shard.UnregisteredLeaseError{Shard: s.now().Descriptor.ID, Lease: lease, Fence: s.fences[lease]}
	}
	return attachment{lease, incarnation}, nil
}

func (l *modelLease) add(span shard.Span) {
	if !slices.ContainsFunc(l.spans, func(s shard.Span) bool { return s.ContainsSpan(span) }) {
		l.spans = append(l.spans, span)
	}
}

func (w *world) writeLease(op *operation, s *modelShard, rev shard.Revision, req *Request) (*Reply, error) {
	var cmd shardpb.LeaseCommand
	must(proto.Unmarshal(req.Command.Body, &cmd))
	kind := req.Command.Kind
	record := w.leases[cmd.Lease]
	atHome := kind != shardpb.Kind_LEASE_REGISTER && kind != shardpb.Kind_LEASE_DETACH
	if atHome && !s.owns(shard.HomeKey(cmd.Lease)) {
		w.violation("T2: %v was asked for %v of lease %d, whose home is elsewhere", s.now().Descriptor, kind, cmd.Lease)
	}
	other := record != nil && cmd.Incarnation != 0 && record.incarnation != cmd.Incarnation
	answer := &shardpb.LeaseAnswer{}
	switch kind {
	case shardpb.Kind_LEASE_GRANT:
		if record != nil {
			return nil, shard.ErrLeaseExists
		}
		record = &modelLease{ttl: cmd.Ttl, incarnation: int64(w.clock)}
		w.leases[cmd.Lease] = record
		w.lives = append(w.lives, leaseLife{lease: cmd.Lease, from: w.clock})
		answer.Ttl, answer.Incarnation = record.ttl, record.incarnation
	case shardpb.Kind_LEASE_ATTACH:
		if record == nil || record.revoking {
			return nil, shard.ErrLeaseNotFound
		}
		record.add(shard.Span{Start: cmd.Span.Start, End: cmd.Span.End})
		answer.Ttl, answer.Incarnation = record.ttl, record.incarnation
	case shardpb.Kind_LEASE_REGISTER:
		if cmd.Fence != s.fences[cmd.Lease] {
			return nil, shard.ErrLeaseRace
		}
		s.registered[cmd.Lease], s.newest[cmd.Lease] = cmd.Incarnation, cmd.Incarnation
	case shardpb.Kind_LEASE_REVOKE:
		switch {
		case record == nil:
			return nil, shard.ErrLeaseNotFound
		case other, cmd.Reign != 0 && cmd.Reign != w.reign:
			return nil, shard.ErrLeaseRace
		}
		w.mark(cmd.Lease, record)
		answer.Incarnation = record.incarnation
		span := s.now().Descriptor.Span
		if slices.ContainsFunc(record.spans, func(o shard.Span) bool { return !span.ContainsSpan(o) }) {
			for _, o := range record.spans {
				answer.Spans = append(answer.Spans, spanProto(o))
			}
			break
		}
		answer.Deleted, answer.More = w.detach(op, s, rev, cmd.Lease, record.incarnation, span)
		if answer.Gone = !answer.More; answer.Gone {
			delete(w.leases, cmd.Lease)
		}
	case shardpb.Kind_LEASE_DETACH:
		if s.newest[cmd.Lease] <= cmd.Incarnation {
			part := shard.Span{Start: cmd.Span.Start, End: cmd.Span.End}
			if !s.now().Descriptor.Span.ContainsSpan(part) {
				w.violation("T5: %v was asked to detach %v", s.now().Descriptor, part)
			}
			answer.Deleted, answer.More = w.detach(op, s, rev, cmd.Lease, cmd.Incarnation, part)
		}
	case shardpb.Kind_LEASE_FORGET:
		switch {
		case record == nil, other: // somebody else was faster
		case !record.revoking:
			w.violation("T7: lease %d is forgotten without having been marked", cmd.Lease)
		default:
			delete(w.leases, cmd.Lease)
		}
	}
	return &Reply{Rev: s.now().Rev, Message: answer}, nil
}

// mark ends the life of a lease.
func (w *world) mark(lease int64, record *modelLease) {
	if record.revoking {
		return
	}
	record.revoking = true
	for i := range w.lives {
		if w.lives[i].lease == lease && w.lives[i].to == 0 {
			w.lives[i].to = w.clock
		}
	}
}

// detach deletes some keys of the lease, raises the fence and takes the registration away.
func (w *world) detach(op *operation, s *modelShard, rev shard.Revision, lease, incarnation int64, span shard.Span) (deleted int64, more bool) {
	delete(s.registered, lease)
	delete(s.newest, lease)
	s.fences[lease]++
	for _, key := range slices.Sorted(maps.Keys(w.versions)) {
		last := w.versions[key][len(w.versions[key])-1]
		if last.deleted || last.lease.id != lease || !span.Contains([]byte(key)) {
			continue
		}
		if more = deleted == detachedMax; more {
			break
		}
		if record := w.leases[lease]; record != nil && !record.revoking && record.incarnation != incarnation {
			w.violation("L3: key %q of lease %v, which lives, is deleted by the revocation of %d", key, last.lease, incarnation)
		}
		w.versions[key] = append(w.versions[key], version{rev: rev, deleted: true})
		deleted++
	}
	if deleted > 0 {
		w.commit(s, s.now(), rev)
		if op != nil {
			op.writes = append(op.writes, written{rev: rev, deleted: int(deleted)})
		}
	}
	return deleted, more
}

func (w *world) readLease(v shard.View, req *Request) proto.Message {
	lease := req.Message.(*routerpb.LeaseQuery).Lease
	status := &routerpb.LeaseStatus{Lease: lease}
	record := w.leases[lease]
	switch req.Op {
	case routerpb.Op_OP_LEASE_KEEPALIVE:
		for _, id := range req.Message.(*routerpb.LeaseQuery).Leases {
			ttl := int64(0)
			if record := w.leases[id]; record != nil && !record.revoking {
				ttl = record.ttl
			}
			status.Ttls = append(status.Ttls, ttl)
		}
	case routerpb.Op_OP_LEASE_TTL:
		status.Ttl = -1
		if record != nil {
			status.Ttl, status.GrantedTtl = record.ttl-1, record.ttl
			for _, span := range record.spans {
				status.Spans = append(status.Spans, spanProto(span))
			}
		}
	case routerpb.Op_OP_LEASE_KEYS:
		for _, kv := range w.cut(v.Descriptor.Span, v.Rev) {
			if kv.Lease == lease {
				status.Keys = append(status.Keys, kv.Key)
			}
		}
	case routerpb.Op_OP_LEASE_LIST:
		for id, l := range w.leases {
			if v.Descriptor.Span.Contains(shard.HomeKey(id)) {
				status.Leases = append(status.Leases, &routerpb.LeaseStatus{Lease: id, Ttl: l.ttl, GrantedTtl: l.ttl})
			}
		}
	default:
		panic(req.Op)
	}
	return status
}

// checkLeases holds every attached key against the records: its lease, that very one,
// must still be there to be revoked, and must know where the key is.
func (w *world) checkLeases() {
	for key, versions := range w.versions {
		last := versions[len(versions)-1]
		if last.deleted || last.lease.id == 0 {
			continue
		}
		record := w.leases[last.lease.id]
		switch {
		case record == nil || record.incarnation != last.lease.incarnation:
			w.violation("T7: key %q is left of lease %v", key, last.lease)
		case !slices.ContainsFunc(record.spans, func(s shard.Span) bool { return s.Contains([]byte(key)) }):
			w.violation("T6: key %q of lease %v is in none of the spans %v", key, last.lease, record.spans)
		default:
			continue
		}
		versions[len(versions)-1].lease = attachment{} // once is enough
	}
}
