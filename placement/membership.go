package placement

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// addNode admits a node, or recognises it by its incarnation and name. If it is recognised nothing changes: the
// command may be a delayed retry, and what it says about the node may be older than what the map knows.
func (m *Map) addNode(c *placementpb.AddNode) (*Map, *placementpb.Result) {
	n, err := newNode(c.Node)
	if err != nil {
		return m, invalid("add a node: %v", err)
	}
	if n.ID != 0 {
		return m, invalid("add node %q: it asks for ID %s; IDs are given, leave it 0", n.Name, n.ID)
	}
	if known := m.nodeByIncarnation(n.Incarnation); known != nil {
		return m, recognise(known, n)
	}
	if known := m.NodeByName(n.Name); known != nil {
		return m, refuse(placementpb.Code_ALREADY_EXISTS,
			"add node %q: the cluster knows node %q (ID %s) with another data directory. Its data was lost, or this data directory belongs elsewhere. "+
				"If the data still exists, start the node with it. If it is lost for good, join as a new node: an empty data directory, a new --name and a new --peer-addr",
			n.Name, n.Name, known.ID)
	}
	if other := m.nodeAtPeerAddr(n.PeerAddr); other != nil {
		return m, peerAddrTaken("add", n.Name, n.PeerAddr, other)
	}
	next := m.edit()
	n.ID = next.nextNode
	next.nextNode++
	next.putNode(n)
	r := ok()
	r.NodeId = uint64(n.ID)
	return next, r
}

// recognise answers a node whose data directory is known.
func recognise(known, n *Node) *placementpb.Result {
	switch {
	case known.State == Removed:
		return refuse(placementpb.Code_FAILED_PRECONDITION,
			"add node %q: this data directory belongs to node %q (ID %s), which was removed from the cluster; empty the data directory, then join again",
			n.Name, known.Name, known.ID)
	case known.Name != n.Name:
		return refuse(placementpb.Code_ALREADY_EXISTS,
			"add node %q: this data directory belongs to node %q (ID %s); start it with --name %s, or with an empty data directory to add another node",
			n.Name, known.Name, known.ID, known.Name)
	default:
		r := ok()
		r.NodeId = uint64(known.ID)
		return r
	}
}

// updateNode changes what the command sets. Only the node itself, identified by its incarnation, can change its
// addresses; anyone who may propose can drain or label it.
func (m *Map) updateNode(c *placementpb.UpdateNode) (*Map, *placementpb.Result) {
	id := shard.NodeID(c.NodeId)
	old := m.Node(id)
	if old == nil {
		return m, refuse(placementpb.Code_NOT_FOUND, "update node %s: there is no such node", id)
	}
	if old.State == Removed {
		return m, refuse(placementpb.Code_FAILED_PRECONDITION, "update node %q (ID %s): it was removed; add it as a new node", old.Name, id)
	}
	if len(c.Incarnation) > 0 && !bytes.Equal(c.Incarnation, old.Incarnation) {
		return m, refuse(placementpb.Code_FAILED_PRECONDITION,
			"update node %q (ID %s): it has another data directory than the one that sent this; use the node's own data directory", old.Name, id)
	}
	updated, err := updatedNode(old, c)
	if err != nil {
		return m, invalid("update node %q (ID %s): %v", old.Name, id, err)
	}
	if updated.sameAs(old) {
		return m, ok()
	}
	if other := m.nodeAtPeerAddr(updated.PeerAddr); other != nil && other.ID != id {
		return m, peerAddrTaken("update", old.Name, updated.PeerAddr, other)
	}
	next := m.edit()
	next.putNode(updated)
	return next, ok()
}

func updatedNode(old *Node, c *placementpb.UpdateNode) (*Node, error) {
	n := *old
	if a := c.Advertised; a != nil {
		if len(c.Incarnation) == 0 {
			return nil, fmt.Errorf("addresses need the incarnation of the node that has them")
		}
		n.PeerAddr, n.ClientURLs, n.AdminAddr, n.ServerVersion = a.PeerAddr, slices.Clone(a.ClientUrls), a.AdminAddr, a.ServerVersion
	}
	if c.Labels != nil {
		labels, err := labelsOf(c.Labels.Labels)
		if err != nil {
			return nil, err
		}
		n.Labels = labels
	}
	switch state := NodeState(c.State); state {
	case Active, Draining, Decommissioning:
		n.State = state
	case Removed:
		return nil, fmt.Errorf("a node is removed by the command that removes nodes")
	case NodeState(placementpb.NodeState_STATE_UNKNOWN): // not set: unchanged
	default:
		return nil, fmt.Errorf("this version knows no %s", state)
	}
	return &n, n.check()
}

// removeNode leaves a tombstone. It never removes replicas: that is a change of each shard's Raft group, which only
// the group itself can commit.
func (m *Map) removeNode(c *placementpb.RemoveNode) (*Map, *placementpb.Result) {
	id := shard.NodeID(c.NodeId)
	old := m.Node(id)
	switch {
	case old == nil:
		return m, refuse(placementpb.Code_NOT_FOUND, "remove node %s: there is no such node", id)
	case old.State == Removed:
		return m, ok()
	}
	if held := m.OnNode(id); len(held) > 0 {
		return m, refuse(placementpb.Code_FAILED_PRECONDITION,
			"remove node %q (ID %s): it still holds replicas of %s; move them first: flotilla node decommission %s", old.Name, id, shardList(held), old.Name)
	}
	for _, o := range m.operators {
		if o.From == id || o.To == id {
			return m, refuse(placementpb.Code_FAILED_PRECONDITION, "remove node %q (ID %s): operator %d of shard %s names it; wait for that or cancel it", old.Name, id, o.ID, o.Shard)
		}
	}
	next := m.edit()
	next.putNode(&Node{ID: id, Name: old.Name, Incarnation: old.Incarnation, State: Removed})
	return next, ok()
}

// Spares returns an error if a node cannot be drained because there is no room elsewhere for its replicas.
func (m *Map) Spares(id shard.NodeID) error {
	active := 0
	for _, n := range m.live {
		if n.ID != id && n.State == Active {
			active++
		}
	}
	if want := m.ReplicationFactor(); active < want {
		return fmt.Errorf("%s cannot be emptied: without it %d nodes are active, and shards should have %s; add a node or lower %s",
			m.Node(id).Name, active, replicas(want), SettingReplicationFactor)
	}
	return nil
}

// replicas writes a number of replicas, for messages.
func replicas(n int) string {
	if n == 1 {
		return "1 replica"
	}
	return fmt.Sprintf("%d replicas", n)
}

// shardList names a few shards and counts the rest, for messages.
func shardList(shards []*shard.Descriptor) string {
	const named = 5
	words := make([]string, 0, named)
	for _, d := range shards[:min(named, len(shards))] {
		words = append(words, d.ID.String())
	}
	list := "shards " + strings.Join(words, ", ")
	if rest := len(shards) - named; rest > 0 {
		list += fmt.Sprintf(" and %d more", rest)
	}
	return list
}

// nodeByIncarnation also finds removed nodes: their data must not come back (P2).
func (m *Map) nodeByIncarnation(incarnation []byte) *Node {
	i := slices.IndexFunc(m.nodes, func(n *Node) bool { return bytes.Equal(n.Incarnation, incarnation) })
	if i < 0 {
		return nil
	}
	return m.nodes[i]
}

func (m *Map) nodeAtPeerAddr(addr string) *Node {
	return m.liveNode(func(n *Node) bool { return n.PeerAddr == addr })
}

func peerAddrTaken(verb, name, addr string, other *Node) *placementpb.Result {
	return refuse(placementpb.Code_ALREADY_EXISTS,
		"%s node %q: peer address %s is in use by node %q (ID %s); give this node another one",
		verb, name, addr, other.Name, other.ID)
}
