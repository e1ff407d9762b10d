package robustness

import (
	"fmt"
	"slices"
	"strings"
)

// ShardCount is the number of equal parts, by first byte, over which the workload spreads its keys. flotilla is
// started with one shard for each.
const ShardCount = 8

// Keyspace is the set of keys a workload touches.
type Keyspace struct {
	// Singles are used one at a time, and by ranges.
	Singles []string
	// Groups each share a prefix and lie in one shard: transactions use the keys of one group together.
	Groups [][]string
	// Leased keys are attached to leases, all by the same clients.
	Leased []string
}

const keysPerGroup = 3

// newKeyspace spreads single keys, groups and leased keys evenly over the keyspace.
func newKeyspace(singles, groups, leased int) Keyspace {
	var ks Keyspace
	for i := range singles {
		ks.Singles = append(ks.Singles, fmt.Sprintf("%skey-%02d", leadByte(i, singles), i))
	}
	for i := range groups {
		var group []string
		for j := range keysPerGroup {
			group = append(group, fmt.Sprintf("%sgroup-%02d/%c", leadByte(i, groups), i, 'a'+j))
		}
		ks.Groups = append(ks.Groups, group)
	}
	for i := range leased {
		ks.Leased = append(ks.Leased, fmt.Sprintf("%sleased-%02d", leadByte(i, leased), i))
	}
	return ks
}

// leadByte is the first byte of keys in the i-th of n parts, somewhat inside the part.
func leadByte(i, n int) string { return string([]byte{byte(256*i/n + 64/max(n, 4))}) }

// Plain returns all keys to which no lease is attached.
func (ks Keyspace) Plain() []string {
	out := slices.Clone(ks.Singles)
	for _, g := range ks.Groups {
		out = append(out, g...)
	}
	return out
}

// All returns every key.
func (ks Keyspace) All() []string { return append(ks.Plain(), ks.Leased...) }

// Cuts returns the keys at which shards may be split. Groups are not divided, because transactions and checks need
// all keys of a group in one shard.
func (ks Keyspace) Cuts() []string {
	out := slices.Concat(ks.Singles, ks.Leased)
	for _, g := range ks.Groups {
		prefix, _, _ := strings.Cut(g[0], "/")
		out = append(out, prefix)
	}
	return out
}

// ShardOf names the initial shard of a key.
func ShardOf(key string) string { return fmt.Sprint(int(key[0]) * ShardCount / 256) }

// spans returns the spans that the workload's ranges ask for: everything, halves, and pieces that begin and end
// within shards.
func spans() [][2]string {
	return [][2]string{
		{"\x00", "\x00"}, {"\x00", "\x80"}, {"\x80", "\x00"}, {"\x10", "\x70"}, {"\x70", "\xc8"}, {"\x3f", "\x41"},
	}
}
