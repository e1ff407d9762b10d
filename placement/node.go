package placement

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// NodeState says what may be placed on a node.
type NodeState int32

// The states of a node. Only RemoveNode leads to Removed, which is final.
const (
	Active          = NodeState(placementpb.NodeState_ACTIVE)
	Draining        = NodeState(placementpb.NodeState_DRAINING)
	Decommissioning = NodeState(placementpb.NodeState_DECOMMISSIONING)
	Removed         = NodeState(placementpb.NodeState_REMOVED)
)

func (s NodeState) String() string {
	switch s {
	case Active:
		return "active"
	case Draining:
		return "draining"
	case Decommissioning:
		return "decommissioning"
	case Removed:
		return "removed"
	default:
		return "state " + strconv.Itoa(int(s))
	}
}

// Bounds of what a node may report about itself: the map is kept in memory by every node and is sent as a whole.
const (
	nameBytesMax        = 255
	addrBytesMax        = 1024
	clientURLsMax       = 32
	incarnationBytesMax = 64
	labelsMax           = 64
	labelBytesMax       = 255
	// nodeIDMax leaves room above any ID chosen at the start, so that next IDs
	// never wrap.
	nodeIDMax = 1 << 62
)

// Node is one process with one data directory. It is immutable, including its slices and Labels.
type Node struct {
	ID   shard.NodeID
	Name string
	// PeerAddr is the node's address for other nodes; no two live nodes share one.
	PeerAddr   string
	ClientURLs []string
	AdminAddr  string
	// Incarnation is chosen at random once per data directory. It distinguishes a node that
	// restarted from one that lost its data and thereby its promises to Raft groups.
	Incarnation []byte
	Labels      map[string]string
	State       NodeState
	// ServerVersion is the version of the software the node ran when it last started; empty if unknown.
	ServerVersion string
	// Version is the version of the map that last changed this node.
	Version uint64
}

// Proto converts the node to its wire form.
func (n *Node) Proto() *placementpb.Node {
	p := &placementpb.Node{
		NodeId: uint64(n.ID), Name: n.Name, PeerAddr: n.PeerAddr, ClientUrls: n.ClientURLs,
		AdminAddr: n.AdminAddr, Incarnation: n.Incarnation, State: placementpb.NodeState(n.State),
		Version: n.Version, ServerVersion: n.ServerVersion,
	}
	for _, name := range slices.Sorted(maps.Keys(n.Labels)) { // P8
		p.Labels = append(p.Labels, &placementpb.Label{Name: name, Value: n.Labels[name]})
	}
	return p
}

// newNode converts a node that joins; the map sets its state and version.
func newNode(p *placementpb.Node) (*Node, error) {
	n, err := nodeOf(p)
	if err != nil {
		return nil, err
	}
	n.State, n.Version = Active, 0
	if err := n.check(); err != nil {
		return nil, fmt.Errorf("node %q: %w", n.Name, err)
	}
	return n, nil
}

// nodeOf converts a node from its wire form. It copies everything.
func nodeOf(p *placementpb.Node) (*Node, error) {
	if p == nil {
		return nil, errors.New("the node is missing")
	}
	labels, err := labelsOf(p.Labels)
	if err != nil {
		return nil, fmt.Errorf("node %q: %w", p.Name, err)
	}
	return &Node{
		ID: shard.NodeID(p.NodeId), Name: p.Name, PeerAddr: p.PeerAddr, ClientURLs: slices.Clone(p.ClientUrls),
		AdminAddr: p.AdminAddr, Incarnation: bytes.Clone(p.Incarnation), Labels: labels, State: NodeState(p.State),
		Version: p.Version, ServerVersion: p.ServerVersion,
	}, nil
}

func labelsOf(ps []*placementpb.Label) (map[string]string, error) {
	if len(ps) > labelsMax {
		return nil, fmt.Errorf("%d labels, at most %d are allowed", len(ps), labelsMax)
	}
	if len(ps) == 0 {
		return nil, nil
	}
	labels := make(map[string]string, len(ps))
	for _, l := range ps {
		if l.GetName() == "" {
			return nil, errors.New("a label has no name")
		}
		if _, twice := labels[l.Name]; twice {
			return nil, fmt.Errorf("label %q is given twice", l.Name)
		}
		if err := errors.Join(checkText("label", l.Name, labelBytesMax), checkText("value of a label", l.Value, labelBytesMax)); err != nil {
			return nil, err
		}
		labels[l.Name] = l.Value
	}
	return labels, nil
}

// check validates the node by itself; a tombstone keeps only its identity.
func (n *Node) check() error {
	if n.Name == "" {
		return errors.New("the name is empty; set --name")
	}
	if len(n.Incarnation) == 0 || len(n.Incarnation) > incarnationBytesMax {
		return fmt.Errorf("the incarnation has %d bytes, it must have 1 to %d", len(n.Incarnation), incarnationBytesMax)
	}
	if n.PeerAddr == "" && n.State != Removed {
		return errors.New("the peer address is empty; set one that other nodes can reach")
	}
	if len(n.ClientURLs) > clientURLsMax {
		return fmt.Errorf("%d client URLs, at most %d are allowed", len(n.ClientURLs), clientURLsMax)
	}
	for _, url := range n.ClientURLs {
		if err := checkText("client URL", url, addrBytesMax); err != nil {
			return err
		}
	}
	return errors.Join(
		checkText("name", n.Name, nameBytesMax),
		checkText("peer address", n.PeerAddr, addrBytesMax),
		checkText("admin address", n.AdminAddr, addrBytesMax),
		checkText("server version", n.ServerVersion, nameBytesMax),
	)
}

// checkText also keeps snapshots readable: protobuf refuses strings that are not UTF-8.
func checkText(what, s string, bytesMax int) error {
	switch {
	case len(s) > bytesMax:
		return fmt.Errorf("the %s has %d bytes, at most %d are allowed", what, len(s), bytesMax)
	case !utf8.ValidString(s):
		return fmt.Errorf("the %s %q is not valid UTF-8", what, s)
	default:
		return nil
	}
}

// Advertises reports whether the node is known with exactly this.
func (n *Node) Advertises(a *placementpb.Advertised) bool {
	return n.PeerAddr == a.PeerAddr && slices.Equal(n.ClientURLs, a.ClientUrls) && n.AdminAddr == a.AdminAddr && n.ServerVersion == a.ServerVersion
}

// sameAs reports whether both describe the same, whatever versions they are from.
func (n *Node) sameAs(o *Node) bool {
	return n.ID == o.ID && n.Name == o.Name && n.PeerAddr == o.PeerAddr && slices.Equal(n.ClientURLs, o.ClientURLs) &&
		n.AdminAddr == o.AdminAddr && bytes.Equal(n.Incarnation, o.Incarnation) && maps.Equal(n.Labels, o.Labels) &&
		n.State == o.State && n.ServerVersion == o.ServerVersion
}
