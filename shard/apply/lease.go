package apply

// leases tells which leases keys of this shard may be attached to. It is the one
// place that a lease registry has to replace.
type leases struct{}

func (*run) leases() leases { return leases{} }

// registered reports whether a key may be attached to the lease. No lease, 0, always
// may; there are no others yet.
func (leases) registered(id int64) bool { return id == 0 }
