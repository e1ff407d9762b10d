package mvcc

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/flotilla-kv/flotilla/shard"
)

// packed remembers headers for which the caches of a node have no room, in a fifth of the room
// that a cache takes for each and without pointers, which a garbage collector would follow. A
// cache takes out what it needs again, so that a header is in one place.
//
// The hash of a key leads to a bucket, where headers lie one behind the other in the order of
// their coming. The first ones make room for the next.
type packed struct {
	buckets int // of a part, at most; immutable, like seed
	seed    maphash.Seed
	parts   [packedParts]packedPart
	owners  atomic.Uint64 // given out
	bytes   atomic.Int64  // taken
	// whole are the owners of which nothing was lost since they had nothing (V10). One whose shards are all gone stays:
	// who shares an owner is not counted, and an element is small.
	whole sync.Map
}

// packedPart has the keys of some hashes. It grows when a bucket is full, so that few headers
// take little.
type packedPart struct {
	sync.Mutex
	buckets []packedBucket
	buf     []byte // scratch
}

// packedBucket has its headers in the first n bytes: length(1) ‖ tag(1) ‖ what appendPacked makes
// of each. The tag is a byte of the hash.
type packedBucket struct {
	n    uint16
	room [packedBucketBytes - 2]byte
}

const (
	// packedParts is large, because a part that grows moves all that it has, while its shard waits.
	packedParts = 512
	// packedBucketBytes: a header is looked for in all of them; but the fewer they are the less evenly
	// keys come to buckets.
	packedBucketBytes = 1 << 10
	// packedKeyMax: with longer keys a header's length would not be one byte.
	packedKeyMax = 200
)

// newPacked allows so many bytes.
func newPacked(bytes int) *packed {
	return &packed{seed: maphash.MakeSeed(), buckets: bytes / packedParts / packedBucketBytes}
}

// owner names somebody who finds nothing of others.
func (p *packed) owner() uint64 { return p.owners.Add(1) }

// put remembers a key's header instead of what was remembered of it.
func (p *packed) put(owner uint64, key string, h Header) {
	if len(key) > packedKeyMax || p.buckets == 0 {
		p.lose(owner)
		return
	}
	hash := maphash.String(p.seed, key)
	part := &p.parts[hash%packedParts]
	part.Lock()
	defer part.Unlock()
	part.buf = appendPacked(part.buf[:0], owner, key, h)
	if b := part.bucket(hash); b != nil {
		b.remove(b.find(tagOf(hash), owner, []byte(key)))
	}
	for len(part.buckets) < p.buckets && !part.bucket(hash).fits(part.buf) {
		p.grow(part)
	}
	p.add(part.bucket(hash), tagOf(hash), part.buf)
}

// lose says that a header of the owner is not remembered any more. It comes before the header can be missed.
func (p *packed) lose(owner uint64) { p.whole.Delete(owner) }

// isWhole reports whether no header of the owner was lost.
func (p *packed) isWhole(owner uint64) bool {
	_, whole := p.whole.Load(owner)
	return whole
}

// take returns a key's header, which is forgotten.
func (p *packed) take(owner uint64, key []byte) (Header, bool) {
	hash := maphash.Bytes(p.seed, key)
	part := &p.parts[hash%packedParts]
	part.Lock()
	defer part.Unlock()
	b := part.bucket(hash)
	if b == nil {
		return Header{}, false
	}
	at, end := b.find(tagOf(hash), owner, key)
	if at == end {
		return Header{}, false
	}
	h := unpack(b.room[at+2 : end])
	b.remove(at, end)
	return h, true
}

// grow doubles the buckets of a part.
func (p *packed) grow(part *packedPart) {
	old := part.buckets
	part.buckets = make([]packedBucket, min(max(2*len(old), 1), p.buckets))
	p.bytes.Add(int64(len(part.buckets)-len(old)) * packedBucketBytes)
	for i := range old {
		for rest := old[i].room[:old[i].n]; len(rest) > 0; {
			end := 2 + int(rest[0])
			hash := maphash.Bytes(p.seed, packedKey(rest[2:end]))
			p.add(part.bucket(hash), rest[1], rest[2:end])
			rest = rest[end:]
		}
	}
}

// bucket returns where a key with this hash is, nil as long as there is none.
func (p *packedPart) bucket(hash uint64) *packedBucket {
	if len(p.buckets) == 0 {
		return nil
	}
	return &p.buckets[hash/packedParts%uint64(len(p.buckets))]
}

func tagOf(hash uint64) byte { return byte(hash >> 56) }

// find returns from where to where the key's header lies; from and to the same, if nowhere.
func (b *packedBucket) find(tag byte, owner uint64, key []byte) (at, end int) {
	for at < int(b.n) {
		end = at + 2 + int(b.room[at])
		if b.room[at+1] == tag {
			d := fields{uvarints{rest: b.room[at+2 : end]}}
			if d.next() == owner && bytes.Equal(d.bytes(), key) {
				return at, end
			}
		}
		at = end
	}
	return 0, 0
}

func (b *packedBucket) remove(at, end int) {
	b.n -= uint16(end - at)
	copy(b.room[at:b.n], b.room[end:])
}

// fits reports whether one more header has room; not if there is no bucket.
func (b *packedBucket) fits(header []byte) bool {
	return b != nil && int(b.n)+2+len(header) <= len(b.room)
}

// add adds a header to a bucket. It removes as many of the first ones as it must.
func (p *packed) add(b *packedBucket, tag byte, header []byte) {
	gone := 0
	for int(b.n)-gone+2+len(header) > len(b.room) {
		end := gone + 2 + int(b.room[gone])
		p.lose(packedOwner(b.room[gone+2 : end]))
		gone = end
	}
	b.remove(0, gone)
	b.room[b.n], b.room[b.n+1] = byte(len(header)), tag
	b.n += 2 + uint16(copy(b.room[b.n+2:], header))
}

// appendPacked appends owner ‖ length of the key ‖ key ‖ flags ‖ mod ‖ age ‖ version ‖ lease, of
// which the last three are left out where flags tell them. Numbers are varints.
func appendPacked(dst []byte, owner uint64, key string, h Header) []byte {
	dst = binary.AppendUvarint(dst, owner)
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	dst = append(dst, key...)
	flags := h.flags()
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, uint64(h.Mod))
	if flags != 0 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(h.Mod-h.Create))
	dst = binary.AppendUvarint(dst, uint64(h.Version))
	return binary.AppendUvarint(dst, uint64(h.Lease))
}

// packedOwner returns the owner of what appendPacked has made.
func packedOwner(header []byte) uint64 {
	d := fields{uvarints{rest: header}}
	return d.next()
}

// packedKey returns the key of what appendPacked has made.
func packedKey(header []byte) []byte {
	d := fields{uvarints{rest: header}}
	d.next()
	return d.bytes()
}

// unpack returns the header of what appendPacked has made.
func unpack(from []byte) Header {
	d := fields{uvarints{rest: from}}
	d.next()
	d.bytes()
	flags := byte(d.next())
	h, short := flagged(flags, shard.Revision(d.next()))
	if !short {
		h.Create = h.Mod - shard.Revision(d.next())
		h.Version = int64(d.next())
		h.Lease = int64(d.next())
	}
	return h
}
