package placement

import (
	"bytes"
	"cmp"
	"iter"
	"slices"
	"strconv"

	"github.com/flotilla-kv/flotilla/shard"
)

// Map is the placement table at one version. It is immutable: any goroutine may read it, and the results of its
// methods must not be modified. The zero Map is that of a cluster before InitCluster.
type Map struct {
	version   uint64
	clusterID uint64

	nodes []*Node // ascending by ID, including tombstones (P2)
	live  []*Node // nodes that are not removed

	byStart []*shard.Descriptor // ascending by Span.Start (P1)
	byID    []entry             // the same shards, ascending by ID
	meta    entry               // the meta group; meta.desc is nil when not tracked

	compacted shard.Revision

	// The lowest IDs that were never assigned (P2).
	nextNode  shard.NodeID
	nextShard shard.ID

	settings        []Setting // ascending by name
	settingsVersion uint64

	operators        []*Operator // ascending by shard
	operatorsVersion uint64

	auth *Auth // nil: as it was before the first change of it
}

// entry is a shard and the version of the map that last changed it.
type entry struct {
	desc    *shard.Descriptor
	version uint64
}

// Version rises by one with every change (P6); 0 before InitCluster.
func (m *Map) Version() uint64 { return m.version }

// ClusterID is the cluster's ID; 0 before InitCluster.
func (m *Map) ClusterID() uint64 { return m.clusterID }

// Compacted is the revision below which history may be gone; 0 if none was compacted.
func (m *Map) Compacted() shard.Revision { return m.compacted }

// Lookup returns the shard that owns key; nil only before InitCluster.
func (m *Map) Lookup(key []byte) *shard.Descriptor {
	if len(m.byStart) == 0 {
		return nil
	}
	return m.byStart[m.indexOf(key)]
}

// Overlapping returns the shards that own some key of span, in key order. The result is part of the map, not a copy.
// It is empty for an empty span.
func (m *Map) Overlapping(span shard.Span) []*shard.Descriptor {
	if len(m.byStart) == 0 || span.Empty() {
		return nil
	}
	first, last := m.indexOf(span.Start), len(m.byStart)
	if len(span.End) > 0 {
		last, _ = slices.BinarySearchFunc(m.byStart, span.End, compareStart)
	}
	return m.byStart[first:last:last]
}

// indexOf returns the position of the shard that owns key: the last one that does
// not start after it. The first starts at the lowest key (P1), so there always is one.
func (m *Map) indexOf(key []byte) int {
	i, found := slices.BinarySearchFunc(m.byStart, key, compareStart)
	if found || i == 0 {
		return i
	}
	return i - 1
}

func compareStart(d *shard.Descriptor, key []byte) int { return bytes.Compare(d.Span.Start, key) }

// Shards returns all shards of the keyspace in key order.
func (m *Map) Shards() []*shard.Descriptor { return slices.Clip(m.byStart) }

// Shard returns the shard with this ID, or nil. For shard.MetaID it returns the meta group, whose span is
// meaningless, if the map records it.
func (m *Map) Shard(id shard.ID) *shard.Descriptor {
	if id == shard.MetaID {
		return m.meta.desc
	}
	i, found := slices.BinarySearchFunc(m.byID, id, compareID)
	if !found {
		return nil
	}
	return m.byID[i].desc
}

func compareID(e entry, id shard.ID) int { return cmp.Compare(e.desc.ID, id) }

// Nodes returns the nodes that are not removed, ascending by ID.
func (m *Map) Nodes() []*Node { return slices.Clip(m.live) }

// Node returns the node by ID, removed or not; nil when it never existed.
func (m *Map) Node(id shard.NodeID) *Node {
	i, found := m.nodeIndex(id)
	if !found {
		return nil
	}
	return m.nodes[i]
}

func (m *Map) nodeIndex(id shard.NodeID) (int, bool) {
	return slices.BinarySearchFunc(m.nodes, id, func(n *Node, id shard.NodeID) int { return cmp.Compare(n.ID, id) })
}

// NodeByName returns the node that has the name now, or nil. A removed node has none.
func (m *Map) NodeByName(name string) *Node {
	return m.liveNode(func(n *Node) bool { return n.Name == name })
}

func (m *Map) liveNode(match func(*Node) bool) *Node {
	if i := slices.IndexFunc(m.live, match); i >= 0 {
		return m.live[i]
	}
	return nil
}

// Gone reports whether a replica existed and has been removed since. An older map may not know it
// yet, but no map reports it wrongly, because IDs are not reused (P2).
func (m *Map) Gone(id shard.ID, replica shard.ReplicaID) bool {
	if d := m.Shard(id); d != nil {
		return replica < d.NextReplicaID && d.NodeOf(replica) == 0
	}
	named := func(o *Operator) bool { return o.With == id || o.Child != nil && o.Child.ID == id }
	return id != shard.MetaID && id < m.nextShard && !slices.ContainsFunc(m.operators, named)
}

// OnNode returns the groups that have a replica on the node: first the meta group, if the map records it, then shards
// in key order.
func (m *Map) OnNode(id shard.NodeID) []*shard.Descriptor {
	var held []*shard.Descriptor
	for d := range m.groups() {
		if _, has := d.ReplicaOn(id); has {
			held = append(held, d)
		}
	}
	return held
}

// groups yields every Raft group in the map: the meta group, then the shards.
func (m *Map) groups() iter.Seq[*shard.Descriptor] {
	return func(yield func(*shard.Descriptor) bool) {
		if m.meta.desc != nil && !yield(m.meta.desc) {
			return
		}
		for _, d := range m.byStart {
			if !yield(d) {
				return
			}
		}
	}
}

// Settings returns all settings, ascending by name.
func (m *Map) Settings() []Setting { return slices.Clip(m.settings) }

// Setting returns the value of a setting; false if it is not set.
func (m *Map) Setting(name string) (string, bool) {
	i, found := m.settingIndex(name)
	if !found {
		return "", false
	}
	return m.settings[i].Value, true
}

func (m *Map) settingIndex(name string) (int, bool) {
	return slices.BinarySearchFunc(m.settings, name, func(s Setting, name string) int { return cmp.Compare(s.Name, name) })
}

// ReplicationFactor is how many replicas each shard should have; 0 before InitCluster.
func (m *Map) ReplicationFactor() int {
	value, _ := m.Setting(SettingReplicationFactor)
	factor, err := strconv.Atoi(value)
	if err != nil {
		return 0 // not initialised: SetSetting accepts nothing else
	}
	return factor
}
