package adminapi

import (
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// allows returns why a command that changes where shards are is refused: because one is locked, or
// by the table.
func (v *View) allows(c *placementpb.Command, of ...*shard.Descriptor) error {
	for _, d := range of {
		if err := v.unlocked(d); err != nil {
			return err
		}
	}
	return refusal(v.Map.Check(c))
}

func (v *View) unlocked(d *shard.Descriptor) error {
	if why, locked := v.Map.Rules().Locked[d.ID]; locked {
		return refuse(codes.FailedPrecondition, "shard %s is locked: %s; flotilla shard unlock %s lets it be changed", d.ID, why, d.ID)
	}
	return nil
}

func (v *View) transfer(req *adminpb.TransferRequest) (*placementpb.Command, error) {
	d, err := v.group(req.Shard)
	if err != nil {
		return nil, err
	}
	if err := v.unlocked(d); err != nil {
		return nil, err
	}
	n, err := v.active(req.To)
	if err != nil {
		return nil, err
	}
	if r, has := d.ReplicaOn(n.ID); !has || r.Learner {
		return nil, refuse(codes.FailedPrecondition, "shard %s has no replica on %s that could lead; it is on %s", d.ID, n.Name, v.holders(d))
	}
	if d.PreferredNode == n.ID {
		return nil, nil // it leads, or is about to
	}
	return placement.Prefer(d, n.ID), nil
}

func (v *View) cancel(req *adminpb.CancelRequest) (*placementpb.Command, error) {
	for _, o := range v.Map.Operators() {
		if o.ID == req.Operator {
			return placement.CancelOf(o.Shard, o.ID), nil
		}
	}
	return nil, refuse(codes.NotFound, "operator %d has ended, or there never was one; flotilla operator ls lists those that go on", req.Operator)
}

func (v *View) lock(req *adminpb.LockRequest) (*placementpb.Command, error) {
	d, err := v.group(req.Shard)
	if err != nil {
		return nil, err
	}
	return placement.Set(placement.LockSetting(d.ID), req.Reason), nil
}

func (v *View) setNodeState(req *adminpb.SetNodeStateRequest) (*placementpb.Command, error) {
	n, err := v.member(req.Node)
	if err != nil {
		return nil, err
	}
	states := []placement.NodeState{placement.Active, placement.Draining, placement.Decommissioning}
	i := slices.IndexFunc(states, func(state placement.NodeState) bool { return state.String() == req.State })
	if i < 0 {
		return nil, refuse(codes.InvalidArgument, "state %q: want active, draining or decommissioning", req.State)
	}
	if states[i] == placement.Decommissioning {
		if err := v.Map.Spares(n.ID); err != nil {
			return nil, refuse(codes.FailedPrecondition, "%v", err)
		}
	}
	return placement.SetState(n.ID, states[i]), nil
}

func (v *View) set(req *adminpb.SetRequest) (*placementpb.Command, error) {
	return placement.Set(req.Name, req.Value), nil
}

// removeNode requires more than that a node holds nothing: an active node is about to be given
// something.
func (v *View) removeNode(req *adminpb.RemoveNodeRequest) (*placementpb.Command, error) {
	n, err := v.member(req.Node)
	if err != nil {
		return nil, err
	}
	if n.State != placement.Decommissioning {
		return nil, refuse(codes.FailedPrecondition, "%s is %s; flotilla node decommission %s --wait empties it first", n.Name, n.State, n.Name)
	}
	return placement.Remove(n.ID), nil
}

// cut finds the shard that is to be split, and where.
func (v *View) cut(req *adminpb.SplitRequest) (*shard.Descriptor, []byte, error) {
	if req.Shard == 0 && len(req.Key) == 0 {
		return nil, nil, refuse(codes.InvalidArgument, "split: name a shard, or a key to split at, or both")
	}
	if req.Shard == 0 {
		return v.Map.Lookup(req.Key), req.Key, nil
	}
	d, err := v.find(req.Shard)
	if err != nil || len(req.Key) > 0 {
		return d, req.Key, err
	}
	load := v.Load.Shards[d.ID]
	for _, p := range []placement.SplitPoint{load.Balance, load.Middle} {
		if len(p.Key) > 0 {
			return d, p.Key, nil
		}
	}
	return nil, nil, refuse(codes.FailedPrecondition, "split shard %s: no key is known that divides its writes or its bytes; name one", d.ID)
}

// ends finds the nodes of a move, and refuses one that would leave too few replicas: the balancer
// would add another at once.
func (v *View) ends(d *shard.Descriptor, req *adminpb.MoveRequest) (from, to shard.NodeID, err error) {
	if req.From == "" && req.To == "" {
		return 0, 0, refuse(codes.InvalidArgument, "move a replica of shard %s: name the node it goes to, the node it leaves, or both", d.ID)
	}
	if req.To != "" {
		n, err := v.active(req.To)
		if err != nil {
			return 0, 0, err
		}
		to = n.ID
	}
	if req.From == "" {
		return 0, to, nil
	}
	n, err := v.member(req.From)
	if err != nil {
		return 0, 0, err
	}
	r, has := d.ReplicaOn(n.ID)
	if !has {
		return 0, 0, refuse(codes.FailedPrecondition, "shard %s has no replica on %s; it is on %s", d.ID, n.Name, v.holders(d))
	}
	voters := 0
	for _, r := range d.Replicas {
		if !r.Learner {
			voters++
		}
	}
	if want := v.Map.ReplicationFactor(); to == 0 && !r.Learner && voters <= want {
		return 0, 0, refuse(codes.FailedPrecondition, "shard %s has %d of %d replicas; name a node that takes the one on %s, or lower %s",
			d.ID, voters, want, n.Name, placement.SettingReplicationFactor)
	}
	return n.ID, to, nil
}

func (v *View) find(id uint64) (*shard.Descriptor, error) {
	if shard.ID(id) == shard.MetaID {
		return nil, refuse(codes.FailedPrecondition, "shard 1 is the meta group, which has no keys")
	}
	if d := v.Map.Shard(shard.ID(id)); d != nil {
		return d, nil
	}
	return nil, refuse(codes.NotFound, "shard %d is not in the placement table; flotilla shard ls lists those that are", id)
}

// group is find for operations that the meta group supports as well.
func (v *View) group(id uint64) (*shard.Descriptor, error) {
	if d := v.Map.Shard(shard.MetaID); d != nil && d.ID == shard.ID(id) {
		return d, nil
	}
	return v.find(id)
}

// member finds a node by its name.
func (v *View) member(name string) (*placement.Node, error) {
	if n := v.Map.NodeByName(name); n != nil && n.State != placement.Removed {
		return n, nil
	}
	var names []string
	for _, n := range v.Map.Nodes() {
		names = append(names, n.Name)
	}
	return nil, refuse(codes.NotFound, "node %q is not part of the cluster, whose nodes are %s", name, strings.Join(names, ", "))
}

// active finds a node that may be given something; from any other node the balancer would take it
// away again.
func (v *View) active(name string) (*placement.Node, error) {
	n, err := v.member(name)
	if err == nil && n.State != placement.Active {
		return nil, refuse(codes.FailedPrecondition, "%s is %s and takes nothing; flotilla node undrain makes it active", n.Name, n.State)
	}
	return n, err
}

// holders are the nodes of a shard.
func (v *View) holders(d *shard.Descriptor) string {
	var names []string
	for _, r := range d.Replicas {
		names = append(names, v.name(r.Node))
	}
	return strings.Join(names, ", ")
}
