package mvcc

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// CollectLimits bound one step of Collect; zero fields mean no bound.
type CollectLimits struct {
	Versions int // to look at
	Drops    int // to drop
	// Singles is how many versions of one key are deleted individually. Older ones are deleted at
	// once, which costs the same for a million versions as for ten.
	Singles int
}

// Collected is the result of one step of Collect.
type Collected struct {
	// Next is the key to go on from; nil when the span is done.
	Next     []byte
	Versions int // looked at
	Dropped  int
	Bytes    int64 // of the keys and values dropped
	// Histories counts the keys of which all further versions were deleted at once. Those versions
	// were not examined, and are in none of the figures above.
	Histories int
}

// Collect adds to b the deletion of versions of the span's keys, from key from on
// (nil: the start), that no read at or above the compaction revision c can reach. The
// caller commits b, pauses as it likes and calls again with Next. If b is lost in a
// crash, another run finds the same versions again.
//
// Of each key it keeps every version above c and the newest one at or below it,
// unless that is a tombstone older than c. A watch may begin at c, so a tombstone at
// exactly c stays, and so does the version that one at exactly c replaced.
//
// since is the revision up to which the whole span has been collected already, 0 for
// none. Then only keys changed in [since, c] can have garbage: any other key has no
// more than one version at or below c, and no tombstone. So the walk visits only those
// blocks that can contain such changes, and costs what was written, not what is stored.
func Collect(r engine.Reader, b *pebble.Batch, span shard.Span, since, c shard.Revision, from []byte, limits CollectLimits) (out Collected, err error) {
	if bytes.Compare(from, span.Start) > 0 {
		span.Start = from
	}
	if span.Empty() {
		return Collected{}, nil
	}
	k := collector{b: b, since: since, c: c, limits: limits}
	err = errors.Join(k.open(r, span), k.run(), k.close())
	if err != nil {
		return Collected{}, fmt.Errorf("collect versions of %s up to revision %s: %w", span, c, err)
	}
	return k.out, nil
}

type collector struct {
	it *pebble.Iterator
	// changed shows which keys may have changed in [since, c]; nil when all are looked at.
	changed  *pebble.Iterator
	b        *pebble.Batch
	since, c shard.Revision
	limits   CollectLimits
	out      Collected

	key  []byte // the key being collected
	seek []byte // scratch
}

func (k *collector) open(r engine.Reader, span shard.Span) (err error) {
	o := pebble.IterOptions{}
	o.LowerBound, o.UpperBound = engine.DataSpanBounds(span)
	if k.it, err = r.NewIter(&o); err != nil || k.since == 0 {
		return err
	}
	o.PointKeyFilters = engine.RevisionFilter(k.since-1, k.c)
	k.changed, err = r.NewIter(&o)
	return err
}

func (k *collector) close() (err error) {
	for _, it := range []*pebble.Iterator{k.it, k.changed} {
		if it != nil {
			err = errors.Join(err, it.Close())
		}
	}
	return err
}

func (k *collector) run() error {
	keys := k.it
	if k.changed != nil {
		keys = k.changed
	}
	for valid := keys.First(); valid; valid = keys.Valid() {
		key, rev, err := dataKeyAt(keys)
		if err != nil {
			return err
		}
		k.key = append(k.key[:0], key...)
		if k.full() {
			k.out.Next = bytes.Clone(k.key)
			return nil
		}
		if k.changed != nil {
			if found, err := k.findChange(&rev); err != nil {
				return err
			} else if !found {
				continue
			}
		}
		if done, err := k.collectKey(rev); err != nil {
			return fmt.Errorf("key %q: %w", k.key, err)
		} else if !done {
			k.out.Next = bytes.Clone(k.key)
			return nil
		}
	}
	return keys.Error()
}

// findChange looks at the key that changed stands on, whose newest version there is at
// rev, and leaves it. If the key has a version in [since, c], it is found, and the other
// iterator stands on its newest one at or below c.
func (k *collector) findChange(rev *shard.Revision) (found bool, err error) {
	k.out.Versions++
	if *rev > k.c {
		k.seek = engine.AppendDataKey(k.seek[:0], k.key, k.c)
		k.changed.SeekGE(k.seek)
		if same, err := k.sameKey(k.changed, rev); !same || err != nil {
			return false, err
		}
	}
	k.changed.NextPrefix()
	if *rev < k.since {
		return false, nil
	}
	k.seek = engine.AppendDataKey(k.seek[:0], k.key, k.c)
	k.it.SeekGE(k.seek)
	return k.sameKey(k.it, rev)
}

// full reports whether a limit is reached. It is asked only after some progress, a
// whole key or one dropped version, so that small limits cannot stop the collection.
func (k *collector) full() bool {
	return k.limits.Versions > 0 && k.out.Versions >= k.limits.Versions ||
		k.limits.Drops > 0 && k.out.Dropped >= k.limits.Drops
}

// collectKey does the key the iterator stands on, whose newest version is at rev, and
// moves to the next key. It is not done when a limit stopped it.
func (k *collector) collectKey(rev shard.Revision) (done bool, err error) {
	k.out.Versions++
	if rev > k.c {
		k.seek = engine.AppendDataKey(k.seek[:0], k.key, k.c)
		k.it.SeekGE(k.seek)
		if same, err := k.sameKey(k.it, &rev); !same || err != nil {
			return err == nil, err // no version at or below c
		}
		k.out.Versions++
	}
	base, baseBytes := rev, k.valueBytes()
	deleted, err := k.deleted()
	if err != nil {
		return false, err
	}
	if err := k.passKept(base, deleted); err != nil {
		return false, err
	}
	if done, err := k.dropRest(); !done || err != nil {
		return false, err
	}
	// The tombstone goes last and never in an earlier batch than what it hides:
	// otherwise a version below it would come to life again.
	if deleted && base < k.c {
		return true, k.drop(base, baseBytes)
	}
	return true, nil
}

// passKept moves from base, the key's newest version at or below c, to the first one that
// nobody can meet: the next, unless base is at c itself. A watch from c shows what that replaced.
func (k *collector) passKept(base shard.Revision, deleted bool) (err error) {
	replaced := base == k.c && deleted
	if base == k.c && !deleted {
		if replaced, err = k.replacedOne(base); err != nil {
			return err
		}
	}
	k.it.Next()
	if !replaced {
		return nil
	}
	var rev shard.Revision
	same, err := k.sameKey(k.it, &rev)
	if same {
		k.out.Versions++
		k.it.Next()
	}
	return err
}

// dropRest drops the version that the iterator stands on and all older ones of the key, and
// moves to the next key. It is not done when a limit stopped it.
func (k *collector) dropRest() (done bool, err error) {
	for dropped := 0; ; dropped++ {
		var rev shard.Revision
		same, err := k.sameKey(k.it, &rev)
		if !same || err != nil {
			return err == nil, err
		}
		if k.limits.Singles > 0 && dropped >= k.limits.Singles {
			if err := k.dropFrom(rev); err != nil {
				return false, err
			}
			k.it.NextPrefix()
			return true, nil
		}
		if dropped > 0 && k.full() {
			return false, nil
		}
		k.out.Versions++
		if err := k.drop(rev, k.valueBytes()); err != nil {
			return false, err
		}
		k.it.Next()
	}
}

// sameKey reports whether an iterator still stands on the key, and at which revision.
func (k *collector) sameKey(it *pebble.Iterator, rev *shard.Revision) (bool, error) {
	if !it.Valid() {
		return false, it.Error()
	}
	key, at, err := dataKeyAt(it)
	if err != nil || !bytes.Equal(key, k.key) {
		return false, err
	}
	*rev = at
	return true, nil
}

func (k *collector) deleted() (bool, error) {
	flags, err := engine.Flags(k.it)
	return flags&flagDeleted != 0, err
}

// replacedOne reports whether the put the iterator stands on replaced an existing
// version. It asks the record and not the version below, which another step of the
// same collection may have dropped.
func (k *collector) replacedOne(rev shard.Revision) (bool, error) {
	rec, err := k.it.ValueAndErr()
	if err != nil {
		return false, err
	}
	h, _, err := decodeRecord(rec, rev)
	return h.Version > 1, err
}

// valueBytes is the size of the value the iterator stands on, wherever it is stored.
func (k *collector) valueBytes() uint32 {
	v := k.it.LazyValue()
	return uint32(v.Len())
}

// drop removes a version. It says how large it is, so that the store knows where space
// can be won: each version was written once (E4 of package engine), so that is exact.
func (k *collector) drop(rev shard.Revision, valueBytes uint32) error {
	k.out.Dropped++
	k.out.Bytes += int64(len(k.key)+engine.DataKeyOverhead) + int64(valueBytes)
	op := k.b.DeleteSizedDeferred(len(k.key)+engine.DataKeyOverhead, valueBytes)
	engine.AppendDataKey(op.Key[:0], k.key, rev)
	return op.Finish()
}

// dropFrom removes the key's version at the revision and all that are older. None of them
// is written any more, because they are at or below the compacted revision.
func (k *collector) dropFrom(rev shard.Revision) error {
	k.out.Histories++
	from := engine.DataKey(k.key, rev)
	return k.b.DeleteRange(from, engine.DataKeyEnd(k.key), nil)
}
