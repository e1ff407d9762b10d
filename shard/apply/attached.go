package apply

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
)

// attached maintains the index of attached keys during one Update. The index in the engine is that
// of the last Update, and it only names candidates: a key's latest version decides.
type attached struct {
	r engine.Reader
	b *pebble.Batch
	// added are the keys that this Update has attached, which the engine does not show yet.
	added map[int64][][]byte
}

// noteAttached updates the index and the registrations according to the changes of one command.
func (r *run) noteAttached(changes []mvcc.Change) error {
	for i := range changes {
		c := &changes[i]
		var before int64
		if c.Existed {
			before = c.Prev.Lease
		}
		if before == c.Header.Lease { // 0 for a tombstone
			continue
		}
		if before != 0 {
			if err := r.attached.b.Delete(engine.AttachedKey(before, c.Key), nil); err != nil {
				return fmt.Errorf("detach key %q: %w", c.Key, err)
			}
		}
		if id := c.Header.Lease; id != 0 {
			r.register(id)
			if err := r.attached.add(id, c.Key); err != nil {
				return fmt.Errorf("attach key %q: %w", c.Key, err)
			}
		}
	}
	return nil
}

func (a *attached) add(lease int64, key []byte) error {
	if a.added == nil {
		a.added = make(map[int64][][]byte)
	}
	a.added[lease] = append(a.added[lease], key)
	return a.b.Set(engine.AttachedKey(lease, key), nil, nil)
}

// attachedTo lists keys of the span that are attached to the lease, in order, at most limit of
// them.
func (r *run) attachedTo(lease int64, span shard.Span, limit int) (keys [][]byte, err error) {
	recent := slices.DeleteFunc(slices.Clone(r.attached.added[lease]), func(k []byte) bool { return !span.Contains(k) })
	slices.SortFunc(recent, bytes.Compare)
	it, err := newCandidates(r.attached.r, lease, span)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.close()) }()
	stored := it.first()
	for len(keys) < limit && (stored != nil || len(recent) > 0) {
		key := stored
		if key == nil || len(recent) > 0 && bytes.Compare(recent[0], key) < 0 {
			key, recent = recent[0], recent[1:]
		} else {
			stored = it.next()
		}
		if n := len(keys); n > 0 && bytes.Equal(keys[n-1], key) {
			continue // attached before and once more
		}
		h, existed, err := r.w.Header(key)
		if err != nil {
			return nil, err
		}
		if existed && h.Lease == lease {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// candidates iterates over the index in the engine.
type candidates struct{ it *pebble.Iterator }

func newCandidates(r engine.Reader, lease int64, span shard.Span) (candidates, error) {
	lower, upper := engine.AttachedBounds(lease, span)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return candidates{}, fmt.Errorf("list keys of lease %x: %w", lease, err)
	}
	return candidates{it}, nil
}

// first and next return the next key, nil after the last. It belongs to the caller.

func (c candidates) first() []byte { return c.key(c.it.First()) }
func (c candidates) next() []byte  { return c.key(c.it.Next()) }

func (c candidates) key(valid bool) []byte {
	if !valid {
		return nil
	}
	_, key, _ := engine.DecodeAttachedKey(c.it.Key()) // by the bounds it is one
	return append(make([]byte, 0, len(key)), key...)  // not nil, whatever its length
}

// close returns the error that ended the iteration early, if any.
func (c candidates) close() error {
	if err := errors.Join(c.it.Error(), c.it.Close()); err != nil {
		return fmt.Errorf("list attached keys: %w", err)
	}
	return nil
}

// LeaseKeys lists the keys of this shard that are attached to the lease, in order. While a snapshot
// is being installed it fails with shard.ErrUnavailable.
func (m *Machine) LeaseKeys(lease int64) (keys [][]byte, err error) {
	s, err := m.snapshot(0)
	if err != nil {
		return nil, unmarked(err)
	}
	it, err := newCandidates(m.stored(), lease, s.view.Descriptor.Span)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.close()) }()
	for key := it.first(); key != nil; key = it.next() {
		h, existed, err := s.Header(key)
		if err != nil {
			return nil, unmarked(err)
		}
		if existed && h.Lease == lease {
			keys = append(keys, key)
		}
	}
	if _, err := m.settled(); err != nil {
		return nil, err
	}
	return keys, nil
}
