package placement

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// initialShardsMax bounds the initial shards of a cluster. Each is a Raft group with memory and
// timers on every node that holds it; more can be split off later.
const initialShardsMax = 4096

// initCluster makes the first map. A command with the same cluster ID is a retry and succeeds whatever else it says,
// because what the first one made may have changed since.
func (m *Map) initCluster(c *placementpb.InitCluster) (*Map, *placementpb.Result) {
	switch {
	case c.ClusterId == 0:
		return m, invalid("initialise the cluster: the cluster ID is 0; draw one at random")
	case m.clusterID == c.ClusterId:
		return m, ok()
	case m.clusterID != 0:
		return m, refuse(placementpb.Code_ALREADY_EXISTS,
			"initialise cluster %x: this is cluster %x already; to make another one, start its nodes with empty data directories", c.ClusterId, m.clusterID)
	}
	next, err := newMap(c)
	if err != nil {
		return m, invalid("initialise the cluster: %v", err)
	}
	return next, ok()
}

func newMap(c *placementpb.InitCluster) (*Map, error) {
	if err := errors.Join(CheckReplicationFactor(int(c.ReplicationFactor)), checkSplits(c.SplitKeys)); err != nil {
		return nil, err
	}
	nodes, err := firstNodes(c.Nodes)
	if err != nil {
		return nil, err
	}
	next := (&Map{}).edit()
	next.clusterID = c.ClusterId
	next.nextNode = nodes[len(nodes)-1].ID + 1
	next.putNodes(nodes)
	next.putSetting(SettingReplicationFactor, strconv.Itoa(int(c.ReplicationFactor)))
	if c.Meta != nil {
		members, err := descriptorOf(c.Meta)
		if err != nil {
			return nil, fmt.Errorf("meta group: %w", err)
		}
		next.meta = entry{desc: firstMeta(members), version: next.version}
	}
	next.putShards(firstShards(c.SplitKeys, nodes, int(c.ReplicationFactor), next.version))
	next.nextShard = shard.FirstDataID + shard.ID(len(next.byStart))

	// Audit checks how nodes and the meta group's members must relate to each other, for every map.
	if err := next.Audit(); err != nil {
		return nil, err
	}
	return next, nil
}

// firstNodes returns the nodes ascending by ID, so that their order in the command does not matter.
func firstNodes(ps []*placementpb.Node) ([]*Node, error) {
	if len(ps) == 0 {
		return nil, errors.New("there are no nodes; name at least one")
	}
	nodes := make([]*Node, len(ps))
	for i, p := range ps {
		n, err := newNode(p)
		if err != nil {
			return nil, err
		}
		if n.ID == 0 || n.ID > nodeIDMax {
			return nil, fmt.Errorf("node %q has ID %d; IDs are 1 to %d", n.Name, uint64(n.ID), uint64(nodeIDMax))
		}
		n.Version = 1
		nodes[i] = n
	}
	slices.SortFunc(nodes, func(a, b *Node) int { return cmp.Compare(a.ID, b.ID) })
	return nodes, nil
}

// firstMeta keeps the members of the meta group and sets everything else.
func firstMeta(d *shard.Descriptor) *shard.Descriptor {
	return &shard.Descriptor{
		ID: shard.MetaID, Epoch: 1, Generation: 1, Replicas: d.Replicas,
		NextReplicaID: nextReplicaID(d.Replicas, 0), PreferredNode: d.PreferredNode,
	}
}

// firstShards covers the keyspace with one more shard than there are split keys. Shard i is on consecutive nodes
// beginning with node i, in rotation, and its leader on the first of them. So replicas and leaders are spread evenly
// and no node is special.
func firstShards(splits [][]byte, nodes []*Node, factor int, version uint64) []entry {
	var slots slotUse
	var left []shard.Slot
	var start []byte
	entries := make([]entry, len(splits)+1)
	for i := range entries {
		var end []byte
		if i < len(splits) {
			end = bytes.Clone(splits[i])
		}
		d := &shard.Descriptor{
			ID: shard.FirstDataID + shard.ID(i), Span: shard.Span{Start: start, End: end},
			Epoch: 1, Generation: 1, Slot: slots.take(left...), PreferredNode: nodes[i%len(nodes)].ID,
		}
		for j := range min(factor, len(nodes)) {
			d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(j + 1), Node: nodes[(i+j)%len(nodes)].ID})
		}
		d.NextReplicaID = nextReplicaID(d.Replicas, 0)
		entries[i] = entry{desc: d, version: version}
		start, left = end, []shard.Slot{d.Slot}
	}
	return entries
}

// nextReplicaID returns the lowest ID that is above those of replicas and not below floor.
func nextReplicaID(replicas []shard.Replica, floor shard.ReplicaID) shard.ReplicaID {
	next := max(floor, 1)
	for _, r := range replicas {
		next = max(next, r.ID+1)
	}
	return next
}
