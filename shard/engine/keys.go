package engine

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2/cockroachkvs"

	"github.com/flotilla-kv/flotilla/shard"
)

// Key layout (docs/FORMATS.md draws it). Every key ends in a sentinel 0x00 and an
// optional version: 8 bytes of revision, big endian, and a length byte 9. The
// comparer orders by what is before the version, bytewise, then newest first; so
// user keys need no escaping and a bare key sorts before all of its versions.
//
//	d ‖ user key ‖ 00 ‖ revision(8) ‖ 09          one version of a user's key
//	l ‖ shard(8) ‖ replica(8) ‖ kind(1) ‖ 00      a replica's own records
//	x …                                           reserved: lease index
//
// Data keys carry no shard ID: a split hands them over without rewriting any.
const (
	dataTag  = 'd'
	localTag = 'l'

	sentinel      = 0x00
	versionLength = 9 // revision and the length byte itself
	localLength   = 1 + 8 + 8 + 1 + 1
)

// DataKeyOverhead is how many bytes a data key has besides the user's.
const DataKeyOverhead = 1 + 1 + versionLength

// comparer and keySchema come with Pebble: the layout above is the one CockroachDB
// has used for years (a wall time where we have a revision), and its schema stores
// revisions in a column of their own. A comparer of ours would be slower and newer.
// The comparer's name is recorded in every store, so it can never change.
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
	dst = AppendDataPrefix(dst, key)
	dst = binary.BigEndian.AppendUint64(dst, uint64(rev))
	return append(dst, versionLength)
}

// DataPrefix returns the key that sorts just before every version of a user's key.
func DataPrefix(key []byte) []byte {
	return AppendDataPrefix(make([]byte, 0, len(key)+2), key)
}

// AppendDataPrefix appends DataPrefix(key) to dst.
func AppendDataPrefix(dst, key []byte) []byte {
	dst = append(dst, dataTag)
	dst = append(dst, key...)
	return append(dst, sentinel)
}

// DataSpanBounds returns the engine keys [lower, upper) between which lie exactly
// the versions of the span's keys. Both are bare prefixes, as Excise demands.
func DataSpanBounds(s shard.Span) (lower, upper []byte) {
	lower = DataPrefix(s.Start)
	if len(s.End) == 0 {
		return lower, []byte{dataTag + 1, sentinel}
	}
	return lower, DataPrefix(s.End)
}

// DecodeDataKey splits a data key; key aliases k. ok is false for every other key,
// a bare prefix included.
func DecodeDataKey(k []byte) (key []byte, rev shard.Revision, ok bool) {
	n := len(k) - versionLength
	if n < 2 || k[0] != dataTag || k[len(k)-1] != versionLength || k[n-1] != sentinel {
		return nil, 0, false
	}
	return k[1 : n-1], shard.Revision(binary.BigEndian.Uint64(k[n:])), true
}

// LocalKey returns the key of a replica's own record. What kinds there are is the
// business of the packages that write them.
func LocalKey(id shard.ID, replica shard.ReplicaID, kind byte) []byte {
	k := make([]byte, 0, localLength)
	k = append(k, localTag)
	k = binary.BigEndian.AppendUint64(k, uint64(id))
	k = binary.BigEndian.AppendUint64(k, uint64(replica))
	return append(k, kind, sentinel)
}

func decodeLocalKey(k []byte) (id shard.ID, replica shard.ReplicaID, kind byte, err error) {
	if len(k) != localLength || k[0] != localTag || k[localLength-1] != sentinel {
		return 0, 0, 0, fmt.Errorf("local key %x: %w", k, shard.ErrCorrupt)
	}
	id = shard.ID(binary.BigEndian.Uint64(k[1:]))
	replica = shard.ReplicaID(binary.BigEndian.Uint64(k[9:]))
	return id, replica, k[17], nil
}

// localBounds encloses every local record of every replica.
func localBounds() (lower, upper []byte) {
	return []byte{localTag, sentinel}, []byte{localTag + 1, sentinel}
}
