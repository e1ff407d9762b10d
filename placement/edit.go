package placement

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/flotilla-kv/flotilla/shard"
)

// edit starts the next version of the map: a shallow copy that shares m's slices. The functions below replace slices
// and never write into them, so that m stays as its readers saw it.
func (m *Map) edit() *Map {
	next := *m
	next.version++
	return &next
}

// putNode adds the node, or replaces the one with its ID, as of this version.
func (m *Map) putNode(n *Node) {
	n.Version = m.version
	m.putNodes([]*Node{n})
}

// putNodes adds or replaces nodes; nodes is ascending by ID.
func (m *Map) putNodes(nodes []*Node) {
	replaced := idSet(nodes, func(n *Node) shard.NodeID { return n.ID })
	m.nodes = merge(m.nodes, nodes, func(n *Node) bool { return replaced[n.ID] },
		func(a, b *Node) int { return cmp.Compare(a.ID, b.ID) })
	m.live = slices.DeleteFunc(slices.Clone(m.nodes), func(n *Node) bool { return n.State == Removed })
}

// putShards puts entries into the map: each replaces the shard with its ID and every shard that it overlaps. So this
// one function serves changes of replicas, splits and merges. P1 holds afterwards if the entries cover what they
// replace.
func (m *Map) putShards(entries []entry) {
	displaced := idSet(entries, func(e entry) shard.ID { return e.desc.ID })
	for _, e := range entries {
		for _, d := range m.Overlapping(e.desc.Span) {
			displaced[d.ID] = true
		}
	}
	added := make([]*shard.Descriptor, len(entries))
	for i, e := range entries {
		added[i] = e.desc
	}
	byStart := func(a, b *shard.Descriptor) int { return bytes.Compare(a.Span.Start, b.Span.Start) }
	slices.SortFunc(added, byStart)
	m.byStart = merge(m.byStart, added, func(d *shard.Descriptor) bool { return displaced[d.ID] }, byStart)

	byID := func(a, b entry) int { return cmp.Compare(a.desc.ID, b.desc.ID) }
	m.byID = merge(m.byID, slices.SortedFunc(slices.Values(entries), byID),
		func(e entry) bool { return displaced[e.desc.ID] }, byID)
}

func idSet[T any, ID comparable](items []T, id func(T) ID) map[ID]bool {
	set := make(map[ID]bool, len(items))
	for _, item := range items {
		set[id(item)] = true
	}
	return set
}

// merge returns the sorted union of added and of those in kept for which drop is false. Both are sorted; neither is
// changed.
func merge[T any](kept, added []T, drop func(T) bool, compare func(a, b T) int) []T {
	out := make([]T, 0, len(kept)+len(added))
	for _, k := range kept {
		if drop(k) {
			continue
		}
		for len(added) > 0 && compare(added[0], k) < 0 {
			out, added = append(out, added[0]), added[1:]
		}
		out = append(out, k)
	}
	return append(out, added...)
}
