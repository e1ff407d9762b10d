package mvcc

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// Hashed is the result of one step of Hash.
type Hashed struct {
	// Sum covers the keys that exist at the revision. It is additive: the sum of a span is that of
	// its parts, however it is divided and in whatever order they are added.
	Sum uint64
	// Next is the key to go on from; nil when the span is done.
	Next []byte
}

// Hash hashes the span's keys as they were at a revision: for each the key, its value, revisions,
// version and lease. It stops after about bytesMax bytes of keys and values. Garbage and later
// writes make no difference, so that replicas with equal data agree. The caller has checked the
// revision against the compaction revision.
func Hash(r engine.Reader, span shard.Span, at shard.Revision, bytesMax int) (Hashed, error) {
	if span.Empty() {
		return Hashed{}, nil
	}
	lower, upper := engine.DataSpanBounds(span)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return Hashed{}, fmt.Errorf("hash %s at revision %s: %w", span, at, err)
	}
	h := hasher{it: it, visible: newGather(at, listing.FetchOptions{}), left: bytesMax}
	if err := errors.Join(h.run(), it.Close()); err != nil {
		return Hashed{}, fmt.Errorf("hash %s at revision %s: %w", span, at, err)
	}
	return h.out, nil
}

type hasher struct {
	it      *pebble.Iterator
	visible *gather // finds the versions to hash
	left    int     // bytes until the step is over
	out     Hashed
	buf     []byte // scratch
}

func (h *hasher) run() error {
	for valid := h.it.First(); valid; {
		key, rev, err := dataKeyAt(h.it)
		if err != nil {
			return err
		}
		if h.left <= 0 {
			h.out.Next = bytes.Clone(key)
			return nil
		}
		if rev > h.visible.at {
			same := false
			if same, rev, err = h.visible.seekVisible(h.it, key); err != nil {
				return err
			}
			if !same { // every version of key is newer
				valid = h.it.Valid()
				continue
			}
			key = h.visible.key
		}
		if err := h.add(key, rev); err != nil {
			return fmt.Errorf("key %q at revision %s: %w", key, rev, err)
		}
		valid = h.it.NextPrefix()
	}
	return h.it.Error()
}

// skippedBytes is what a key counts against the limit besides its bytes, so that a step over
// deleted or empty keys ends too.
const skippedBytes = 64

// add adds the version the iterator stands on, unless it is a tombstone.
func (h *hasher) add(key []byte, rev shard.Revision) error {
	rec, err := h.it.ValueAndErr()
	if err != nil {
		return err
	}
	h.left -= len(key) + len(rec) + skippedBytes
	head, value, err := decodeRecord(rec, rev)
	if err != nil || head.Deleted {
		return err
	}
	h.buf = appendHashed(h.buf[:0], key, &head, value)
	sum := sha256.Sum256(h.buf)
	h.out.Sum += binary.BigEndian.Uint64(sum[:])
	return nil
}

// appendHashed appends what is hashed of a key. Not what is stored: that may be written in
// another form some day, and nodes of both versions must agree.
func appendHashed(dst, key []byte, h *Header, value []byte) []byte {
	dst = appendBytes(dst, key)
	for _, n := range []int64{int64(h.Create), int64(h.Mod), h.Version, h.Lease} {
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	return append(dst, value...)
}
