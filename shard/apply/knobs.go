package apply

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/lease"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Knobs break the invariants on purpose, so that tests can show that the checkers
// notice. The zero value breaks nothing.
type Knobs struct {
	// ForgetApplied makes Open forget that the last entries were applied (against A3).
	ForgetApplied uint64
	// OneSlot makes every shard mint its revisions in slot 0 (against shard.R2).
	OneSlot bool
	// AnyEpoch carries out what was routed by another map, whosever the keys are (against A7).
	AnyEpoch bool
	// AnyLease attaches keys to leases that are not registered or not there (against L1).
	AnyLease bool
	// AnyFence registers a lease although keys were detached meanwhile (against L6).
	AnyFence bool
	// NoSeed lets a shard that was split off begin without what its parent left (against A9).
	NoSeed bool
	// LoseTombstones lets a shard that was split off begin without the tombstones of its keys:
	// what was deleted last is there again (against A9).
	LoseTombstones bool
	// NoFreeze lets a shard serve on while its left neighbour takes its keys (against A11).
	NoFreeze bool
	// LoseNeighbour takes the keys of a neighbour without what that knew of them: revisions
	// and leases (against A11).
	LoseNeighbour bool
	// KeepFeeds does not end the feeds of keys that were split off (against watch.W8).
	KeepFeeds bool
	// HeedEarly tells who watches of promises before of what they follow (against watch.W11).
	HeedEarly bool
	// Now replaces the stamps of commands by the replica's own clock (against A1).
	Now func() shard.Tick
}

// revive removes the tombstones of a span that are the newest of their keys.
func revive(m *Machine, b *pebble.Batch, span shard.Span) error {
	r := m.engine.NewReader()
	w := mvcc.NewWriter(r, mvcc.NewHeaderCache(mvcc.NewHeaderBudget(0, 1, 0)))
	defer w.Discard()
	o := &pebble.IterOptions{}
	o.LowerBound, o.UpperBound = engine.DataSpanBounds(span)
	it, err := r.NewIter(o)
	if err != nil {
		return err
	}
	for it.First(); it.Valid() && err == nil; it.Next() {
		key, rev, _ := engine.DecodeDataKey(it.Key())
		var h mvcc.Header
		if h, _, err = w.Header(key); err == nil && h.Deleted && h.Mod == rev {
			err = b.Delete(it.Key(), nil)
		}
	}
	return errors.Join(err, it.Close())
}

// orphaned is a seed of which nothing is left but what keys it is about.
func orphaned(t *taken) (*taken, error) {
	table, err := lease.NewTable(&shardpb.LeaseState{})
	view := shard.View{Descriptor: t.view.Descriptor, Rev: shard.FirstRevision, Floor: shard.FirstRevision}
	return &taken{seed: seed{view: view}, table: table}, err
}
