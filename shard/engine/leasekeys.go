package engine

import (
	"encoding/binary"

	"github.com/flotilla-kv/flotilla/shard"
)

// LeaseKey returns the key of a lease's record.
func LeaseKey(lease int64) []byte {
	k := append(make([]byte, 0, 1+8+1), leaseTag)
	k = append(k, shard.HomeKey(lease)...)
	return append(k, sentinel)
}

// LeaseSpanBounds returns the engine keys [lower, upper) that enclose exactly the records of the leases whose home
// key is in the span.
func LeaseSpanBounds(s shard.Span) (lower, upper []byte) {
	return spanBounds([]byte{leaseTag}, s)
}

// decodeLeaseKey returns the lease whose record has this key. ok is false for every other key.
func decodeLeaseKey(k []byte) (lease int64, ok bool) {
	if len(k) < 2 || k[0] != leaseTag || k[len(k)-1] != sentinel {
		return 0, false
	}
	return shard.LeaseAt(k[1 : len(k)-1])
}

// AttachedKey returns the key which records that a user's key is attached to a lease.
func AttachedKey(lease int64, key []byte) []byte {
	k := append(attachedPrefix(lease, len(key)+1), key...)
	return append(k, sentinel)
}

// AttachedBounds returns the engine keys [lower, upper) that enclose exactly the lease's AttachedKeys for keys of the
// span.
func AttachedBounds(lease int64, s shard.Span) (lower, upper []byte) {
	return spanBounds(attachedPrefix(lease, 0), s)
}

// DecodeAttachedKey splits an AttachedKey. The returned key aliases k. ok is false for every other key.
func DecodeAttachedKey(k []byte) (lease int64, key []byte, ok bool) {
	end := len(k) - 1
	if end < attachedStart || k[0] != attachedTag || k[end] != sentinel {
		return 0, nil, false
	}
	return int64(binary.BigEndian.Uint64(k[1:])), k[attachedStart:end], true
}

func attachedPrefix(lease int64, room int) []byte {
	k := append(make([]byte, 0, attachedStart+room), attachedTag)
	return binary.BigEndian.AppendUint64(k, uint64(lease))
}

// attachedTagBounds encloses every AttachedKey.
func attachedTagBounds() (lower, upper []byte) {
	return []byte{attachedTag, sentinel}, after([]byte{attachedTag})
}
