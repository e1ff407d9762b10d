package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/cockroachkvs"

	"github.com/flotilla-kv/flotilla/shard"
)

// Key layout (docs/FORMATS.md draws it). Every key ends in a sentinel 0x00 and an optional version: 8 bytes of
// revision, big endian, and a length byte 9. The comparer orders keys bytewise by what precedes the version, and then
// newest version first. So user keys need no escaping, and a bare key sorts before all of its versions.
//
//	d ‖ user key ‖ 00 ‖ revision(8) ‖ 09          one version of a user's key
//	h ‖ home key(8) ‖ 00                          a lease, at its home (shard.HomeKey)
//	l ‖ shard(8) ‖ replica(8) ‖ kind(1) ‖ … ‖ 00  a replica's own records
//	x ‖ lease(8) ‖ user key ‖ 00                  a key attached to a lease; no value
//
// Only local keys contain a shard ID, so a split need not rewrite any of the others.
const (
	dataTag     = 'd'
	leaseTag    = 'h'
	localTag    = 'l'
	attachedTag = 'x'

	sentinel      = 0x00
	versionLength = 9 // revision and the length byte itself
	localPrefix   = 1 + 8 + 8 + 1
	attachedStart = 1 + 8
)

// DataKeyOverhead is how much longer a data key is than the user's key, in bytes.
const DataKeyOverhead = 1 + 1 + versionLength

// comparer and keySchema come with Pebble. CockroachDB has used the layout above for years (with a wall time in place
// of our revision), and the schema stores revisions in a column of their own. A comparer of our own would be slower
// and less tested. The comparer's name is recorded in every store, so it can never change.
var (
	comparer  = &cockroachkvs.Comparer
	keySchema = &cockroachkvs.KeySchema
)

// DataKey returns the key of one version of a user's key.
func DataKey(key []byte, rev shard.Revision) []byte {
	return AppendDataKey(make([]byte, 0, len(key)+DataKeyOverhead), key, rev)
}

// AppendDataKey appends the key of one version of a user's key to dst.
func AppendDataKey(dst, key []byte, rev shard.Revision) []byte {
	dst = appendDataPrefix(dst, key)
	dst = binary.BigEndian.AppendUint64(dst, uint64(rev))
	return append(dst, versionLength)
}

// DataPrefix returns the key that sorts just before every version of a user's key.
func DataPrefix(key []byte) []byte {
	return appendDataPrefix(make([]byte, 0, len(key)+2), key)
}

// DataKeyEnd returns the key that sorts just after every version of a user's key. The next possible user key begins
// with it.
func DataKeyEnd(key []byte) []byte {
	return append(DataPrefix(key), sentinel)
}

// appendDataPrefix appends DataPrefix(key) to dst.
func appendDataPrefix(dst, key []byte) []byte {
	dst = append(dst, dataTag)
	dst = append(dst, key...)
	return append(dst, sentinel)
}

// DataSpanBounds returns the engine keys [lower, upper) that enclose exactly the versions of the span's keys. Both
// are bare prefixes, as Excise requires.
func DataSpanBounds(s shard.Span) (lower, upper []byte) {
	return spanBounds([]byte{dataTag}, s)
}

// spanBounds returns the engine keys [lower, upper) that enclose the span's keys under a prefix.
func spanBounds(prefix []byte, s shard.Span) (lower, upper []byte) {
	bound := func(key []byte) []byte {
		return append(append(slices.Clip(prefix), key...), sentinel)
	}
	if len(s.End) == 0 {
		return bound(s.Start), after(prefix)
	}
	return bound(s.Start), bound(s.End)
}

// after returns the smallest bound above every key that begins with prefix. A prefix is never all 0xff, because it
// begins with a tag.
func after(prefix []byte) []byte {
	i := len(prefix) - 1
	for prefix[i] == 0xff {
		i--
	}
	return append(slices.Clone(prefix[:i]), prefix[i]+1, sentinel)
}

// DecodeDataKey splits a data key. The returned key aliases k. ok is false for every other key, including a bare
// prefix.
func DecodeDataKey(k []byte) (key []byte, rev shard.Revision, ok bool) {
	n := len(k) - versionLength
	if n < 2 || k[0] != dataTag || k[len(k)-1] != versionLength || k[n-1] != sentinel {
		return nil, 0, false
	}
	return k[1 : n-1], shard.Revision(binary.BigEndian.Uint64(k[n:])), true
}

// LocalKey returns the key of a replica's own record. The packages that write such records define which kinds exist,
// and of which kinds a replica has several, told apart by suffix.
func LocalKey(id shard.ID, replica shard.ReplicaID, kind byte, suffix ...byte) []byte {
	k := append(replicaPrefix(id, replica), kind)
	return append(append(k, suffix...), sentinel)
}

// replicaPrefix returns what the keys of all of a replica's records begin with.
func replicaPrefix(id shard.ID, replica shard.ReplicaID) []byte {
	k := make([]byte, 0, localPrefix+8+1)
	k = append(k, localTag)
	k = binary.BigEndian.AppendUint64(k, uint64(id))
	return binary.BigEndian.AppendUint64(k, uint64(replica))
}

func decodeLocalKey(k []byte) (LocalRecord, error) {
	end := len(k) - 1
	if end < localPrefix || k[0] != localTag || k[end] != sentinel {
		return LocalRecord{}, fmt.Errorf("local key %x: %w", k, shard.ErrCorrupt)
	}
	r := LocalRecord{
		Shard:   shard.ID(binary.BigEndian.Uint64(k[1:])),
		Replica: shard.ReplicaID(binary.BigEndian.Uint64(k[9:])),
		Kind:    k[17],
	}
	if end > localPrefix {
		r.Suffix = bytes.Clone(k[localPrefix:end])
	}
	return r, nil
}
