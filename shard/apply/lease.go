package apply

import "github.com/flotilla-kv/flotilla/shard"

// leases tells which leases keys of this shard may be attached to. The zero value, of
// a read, lets a put pass: reads refuse it for what it is.
type leases struct{ run *run }

// mayAttach refuses to attach keys to a lease that is not known to live: nil for no
// lease, 0.
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

// isHome reports whether the lease's record belongs here.
func (r *run) isHome(id int64) bool { return r.view.Descriptor.Span.Contains(shard.HomeKey(id)) }

// register makes sure that the lease covers this shard's keys (L1), before one is
// attached that mayAttach has let pass. What takes two commands where the home is
// another shard, and was done then, is one step here.
func (r *run) register(id int64) {
	rec := r.leases.Record(id)
	if rec == nil || r.leases.Registered(id) == rec.Incarnation {
		return
	}
	r.leases.Set(rec.Attach(r.view.Descriptor.Span))
	r.leases.Register(id, rec.Incarnation)
}
