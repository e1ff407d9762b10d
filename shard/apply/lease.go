package apply

import "github.com/flotilla-kv/flotilla/shard"

// leases reports which leases keys of this shard may be attached to. The zero value, used by reads,
// accepts any put, because reads refuse puts anyway.
type leases struct{ run *run }

// mayAttach refuses to attach keys to a lease that is not registered as alive; the lease 0, none,
// is always accepted.
func (l leases) mayAttach(id int64) error {
	if id == 0 || l.run == nil {
		return nil
	}
	r := l.run
	switch {
	case r.knobs.AnyLease:
	case r.isHome(id):
		if rec := r.leases.Record(id); rec == nil || rec.Revoking {
			return refuse(shard.ErrLeaseNotFound)
		}
	case r.leases.Registered(id) == 0:
		return refuse(&shard.UnregisteredLeaseError{Shard: r.id, Lease: id, Fence: r.leases.Fence(id)})
	}
	return nil
}

// isHome reports whether the lease's record belongs to this shard.
func (r *run) isHome(id int64) bool { return r.view.Descriptor.Span.Contains(shard.HomeKey(id)) }

// register ensures that the lease covers this shard's keys (L1), before a key is attached that
// mayAttach has accepted. If the home is another shard, two commands have done this already; here
// it is a single step.
func (r *run) register(id int64) {
	rec := r.leases.Record(id)
	if rec == nil || r.leases.Registered(id) == rec.Incarnation {
		return
	}
	r.leases.Set(rec.Attach(r.view.Descriptor.Span))
	r.leases.Register(id, rec.Incarnation)
}
