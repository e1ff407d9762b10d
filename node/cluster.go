package node

import (
	"context"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/etcdapi"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// cluster reports nodes and the meta group to etcd's API.
type cluster struct{ node *Node }

var _ etcdapi.Cluster = (*cluster)(nil)

// ClusterID implements etcdapi.Cluster.
func (c *cluster) ClusterID() uint64 { return c.node.self.Founding.ClusterID }

// MemberID implements etcdapi.Cluster.
func (c *cluster) MemberID() uint64 { return uint64(c.node.self.NodeID) }

// RaftTerm implements etcdapi.Cluster: the meta group's.
func (c *cluster) RaftTerm() uint64 {
	_, term := c.node.host.Leader(shard.MetaID)
	return term
}

// HasLeader implements etcdapi.Cluster. A node without a replica of the meta group learns of its
// leader only from others' answers.
func (c *cluster) HasLeader() bool {
	if !c.node.meta.runs() {
		return true
	}
	leader, _ := c.node.host.Leader(shard.MetaID)
	return leader != 0
}

// Revision implements etcdapi.Cluster.
func (c *cluster) Revision() int64 { return int64(max(c.node.hlc.Seen(), shard.FirstRevision)) }

// Members implements etcdapi.Cluster.
func (c *cluster) Members(ctx context.Context, linearizable bool) ([]*pb.Member, error) {
	m := c.node.table.Map()
	if linearizable {
		var err error
		if m, err = c.node.meta.barrier(ctx); err != nil {
			return nil, err
		}
	}
	var members []*pb.Member
	for _, n := range m.Nodes() {
		if n.State == placement.Removed {
			continue
		}
		members = append(members, &pb.Member{
			ID: uint64(n.ID), Name: n.Name, PeerURLs: []string{c.node.peerTLS.scheme() + n.PeerAddr}, ClientURLs: n.ClientURLs,
		})
	}
	return members, nil
}

// Status implements etcdapi.Cluster.
func (c *cluster) Status(context.Context) (etcdapi.Status, error) {
	leader, _ := c.node.host.Leader(shard.MetaID)
	applied := c.node.meta.applied.Load()
	s := etcdapi.Status{RaftIndex: applied, RaftAppliedIndex: applied}
	if group := c.node.table.Map().Shard(shard.MetaID); group != nil {
		s.Leader = uint64(group.NodeOf(leader))
	}
	m := c.node.engine.Metrics()
	// What is in memtables is not on disk yet, but will be soon.
	s.DBBytes = int64(m.DiskSpaceUsage() + m.MemTable.Size)
	s.DBInUseBytes = s.DBBytes - int64(m.Table.ObsoleteSize) - int64(m.Table.ZombieSize)
	if why := c.node.hlc.Distrusted(); why != "" {
		s.Errors = append(s.Errors, why)
	}
	return s, nil
}

// Alarms implements etcdapi.Cluster: NOSPACE for every node whose disk is nearly full, CORRUPT for
// every node that had a replica which differed from the others, and for all nodes of a shard whose
// replicas differ without a majority.
func (c *cluster) Alarms() []*pb.AlarmMember {
	var alarms []*pb.AlarmMember
	for _, id := range c.corrupt() {
		alarms = append(alarms, &pb.AlarmMember{MemberID: uint64(id), Alarm: pb.AlarmType_CORRUPT})
	}
	for _, id := range c.node.space.fullNodes() {
		alarms = append(alarms, &pb.AlarmMember{MemberID: uint64(id), Alarm: pb.AlarmType_NOSPACE})
	}
	return alarms
}

// corrupt returns the nodes with a CORRUPT alarm, ascending.
func (c *cluster) corrupt() []shard.NodeID {
	m := c.node.table.Map()
	nodes := m.Damaged()
	for _, id := range m.Disputed() {
		if d := m.Shard(id); d != nil {
			for _, r := range d.Replicas {
				nodes = append(nodes, r.Node)
			}
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// Damaged implements etcdapi.Cluster.
func (c *cluster) Damaged() bool {
	damaged := false
	c.node.host.Each(func(r *replica.Replica) { damaged = damaged || r.Damaged() })
	return damaged
}

// RaiseAlarm implements etcdapi.Cluster. Alarms state facts that nodes measure; none can be raised
// by hand.
func (c *cluster) RaiseAlarm(_ context.Context, alarm *pb.AlarmMember) error {
	return status.Error(codes.Unimplemented, fmt.Sprintf("flotilla: alarm %v is raised by nodes themselves and cannot be activated by hand", alarm.Alarm))
}

// ClearAlarm implements etcdapi.Cluster. NOSPACE clears when its cause is gone. CORRUPT stays until
// it is cleared here: quarantined replicas stay so, and shards that refused writes accept them
// again.
func (c *cluster) ClearAlarm(ctx context.Context, alarm *pb.AlarmMember) (bool, error) {
	raised := slices.ContainsFunc(c.Alarms(), func(a *pb.AlarmMember) bool {
		return a.MemberID == alarm.MemberID && a.Alarm == alarm.Alarm
	})
	if !raised || alarm.Alarm != pb.AlarmType_CORRUPT {
		return raised, nil
	}
	node, m := shard.NodeID(alarm.MemberID), c.node.table.Map()
	settings := []string{placement.DamagedSetting(node)}
	for _, id := range m.Disputed() {
		if d := m.Shard(id); d != nil {
			if _, has := d.ReplicaOn(node); has {
				settings = append(settings, placement.DisputedSetting(id))
			}
		}
	}
	for _, name := range settings {
		if _, err := c.node.meta.propose(ctx, placement.Set(name, "")); err != nil {
			return false, fmt.Errorf("clear the alarm: %w", err)
		}
	}
	return true, nil
}
