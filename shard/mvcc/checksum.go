package mvcc

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// Checksum computes, in steps, a checksum over all versions of a span that a read or watch at or
// above the compaction revision can reach: those above it, and of each key the newest at or below
// it unless that is a tombstone. Versions that collectors may have removed are excluded, so
// replicas with equal data agree, however far each has got with its garbage.
type Checksum struct {
	it        *pebble.Iterator
	compacted shard.Revision
	begun     bool
	key       []byte // of the last version; nil before the first
	base      bool   // of key the newest version at or below compacted was seen
	buf       []byte

	// Sum is additive, as Hashed.Sum.
	Sum             uint64
	Versions, Bytes int64
}

// NewChecksum begins with a span in r, which should be a View: its contents must not change
// meanwhile. The caller closes it.
func NewChecksum(r engine.Reader, span shard.Span, compacted shard.Revision) (*Checksum, error) {
	lower, upper := engine.DataSpanBounds(span)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("sum up %s: %w", span, err)
	}
	return &Checksum{it: it, compacted: compacted}, nil
}

// Close ends it, complete or not.
func (c *Checksum) Close() error { return c.it.Close() }

// Step processes about bytesMax bytes of keys and values, and reports whether that was the rest.
func (c *Checksum) Step(bytesMax int) (done bool, err error) {
	valid := c.it.Valid()
	if !c.begun {
		c.begun, valid = true, c.it.First()
	}
	for left := bytesMax; valid && left > 0; valid = c.it.Next() {
		size, err := c.version()
		if err != nil {
			return false, fmt.Errorf("sum up versions: %w", err)
		}
		left -= size
	}
	if err := c.it.Error(); err != nil {
		return false, fmt.Errorf("sum up versions: %w", err)
	}
	return !valid, nil
}

// version takes the version the iterator stands on, and says what it counts against the
// limit of the step.
func (c *Checksum) version() (size int, err error) {
	key, rev, err := dataKeyAt(c.it)
	if err != nil {
		return 0, err
	}
	if c.key == nil || !bytes.Equal(key, c.key) {
		c.key, c.base = append(c.key[:0], key...), false
	}
	size = len(key) + skippedBytes
	if c.base { // garbage
		return size, nil
	}
	rec, err := c.it.ValueAndErr()
	if err != nil {
		return 0, fmt.Errorf("key %q at revision %s: %w", key, rev, err)
	}
	head, value, err := decodeRecord(rec, rev)
	if err != nil {
		return 0, fmt.Errorf("key %q at revision %s: %w", key, rev, err)
	}
	size += len(rec)
	if c.base = rev <= c.compacted; c.base && head.Deleted {
		return size, nil
	}
	c.buf = appendHashed(c.buf[:0], key, &head, value)
	c.buf = binary.BigEndian.AppendUint32(c.buf, head.Sub)
	if head.Deleted {
		c.buf = append(c.buf, 1)
	} else {
		c.buf = append(c.buf, 0)
	}
	c.Add(c.buf)
	c.Versions++
	c.Bytes += int64(len(key) + len(value))
	return size, nil
}

// Add adds something else of the span to the checksum.
func (c *Checksum) Add(data []byte) {
	sum := sha256.Sum256(data)
	c.Sum += binary.BigEndian.Uint64(sum[:])
}
