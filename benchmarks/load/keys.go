package load

import (
	"encoding/binary"
	"fmt"
)

// keyspace keeps the keys of different workloads apart.
type keyspace uint64

const (
	sharedKeys keyspace = iota + 1 // put, get, mixed, ycsb
	txnKeys
	watchKeys
	catchUpKeys
	ycsbInserts
	kubernetesKeys
	listGroups // and those after it
)

const (
	keyBytesMin = 8
	keyBytesMax = 16
)

// key is the i-th key: 8 to 16 bytes whose first bytes are spread evenly over all
// values, so that any uniform split of the keyspace gets its even share.
func (k keyspace) key(i int) string {
	var b [keyBytesMax]byte
	h := mix(uint64(k)<<56 | uint64(i))
	binary.BigEndian.PutUint64(b[:8], h)
	binary.BigEndian.PutUint64(b[8:], mix(h))
	return string(b[:keyBytesMin+h%(keyBytesMax-keyBytesMin+1)])
}

// prefix is a key of fixed length, so that none is a prefix of another.
func (k keyspace) prefix(i int) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], mix(uint64(k)<<56|uint64(i)))
	return string(b[:])
}

// under is the i-th key of the first prefix.
func (k keyspace) under(i int) string { return fmt.Sprintf("%s/%06d", k.prefix(0), i) }

// mix is the finaliser of splitmix64: a bijection that spreads close inputs apart.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
