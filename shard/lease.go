package shard

import "encoding/binary"

// HomeKey is the position of a lease in the keyspace: the shard that owns this key keeps the
// lease's record, so leases spread over shards, split and move as keys do. No user key is written
// there. It is a permutation of the ID's bits, so that consecutive IDs spread too.
func HomeKey(lease int64) []byte {
	return binary.BigEndian.AppendUint64(nil, mix(uint64(lease)))
}

// LeaseAt returns the lease whose HomeKey is key; ok is false for any other key.
func LeaseAt(key []byte) (lease int64, ok bool) {
	if len(key) != 8 {
		return 0, false
	}
	return int64(unmix(binary.BigEndian.Uint64(key))), true
}

// mix is a permutation of 64-bit numbers in which every bit of the input affects every bit of the
// output (the finalizer of SplitMix64). Records are stored under it, so it can never change.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// unmix undoes mix: the constants are the inverses of mix's modulo 2^64.
func unmix(x uint64) uint64 {
	x = (x ^ x>>31 ^ x>>62) * 0x319642b2d24d8ec3
	x = (x ^ x>>27 ^ x>>54) * 0x96de1b173f119089
	return x ^ x>>30 ^ x>>60
}
