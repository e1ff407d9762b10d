package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/statemachine"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// metaMachine is the meta group's state machine as dragonboat drives it: a shell
// around placement.State that publishes every new map on this node.
type metaMachine struct {
	state   *placement.State
	publish func(*placement.Map)
	applied *atomic.Uint64
	// current is the state's map: Lookup runs beside Update.
	current atomic.Pointer[placement.Map]
}

var _ statemachine.IConcurrentStateMachine = (*metaMachine)(nil)

// Update implements IConcurrentStateMachine.
func (m *metaMachine) Update(entries []statemachine.Entry) ([]statemachine.Entry, error) {
	for i := range entries {
		data, err := m.state.ApplyEntry(entries[i].Cmd).MarshalVT()
		if err != nil {
			return nil, fmt.Errorf("encode a placement result: %w", err)
		}
		entries[i].Result = statemachine.Result{Data: data}
		m.applied.Store(entries[i].Index)
	}
	m.show()
	return entries, nil
}

// show lets everybody see what was applied.
func (m *metaMachine) show() {
	m.current.Store(m.state.Map())
	m.publish(m.state.Map())
}

// Lookup implements IConcurrentStateMachine: whatever is asked, the answer is the map.
func (m *metaMachine) Lookup(any) (any, error) { return m.current.Load(), nil }

// PrepareSnapshot implements IConcurrentStateMachine.
func (m *metaMachine) PrepareSnapshot() (any, error) { return m.state.Snapshot(), nil }

// SaveSnapshot implements IConcurrentStateMachine.
func (m *metaMachine) SaveSnapshot(prepared any, w io.Writer, _ statemachine.ISnapshotFileCollection, _ <-chan struct{}) error {
	_, err := w.Write(prepared.([]byte))
	return err
}

// RecoverFromSnapshot implements IConcurrentStateMachine.
func (m *metaMachine) RecoverFromSnapshot(r io.Reader, _ []statemachine.SnapshotFile, _ <-chan struct{}) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("read a snapshot of the placement table: %w", err)
	}
	if err := m.state.Restore(data); err != nil {
		return err
	}
	m.show()
	return nil
}

// Close implements IConcurrentStateMachine.
func (m *metaMachine) Close() error { return nil }

// meta is the node's way to the meta group: a replica of its own, or its peers.
type meta struct {
	node    *Node
	member  bool // this node holds a replica
	own     shard.ReplicaID
	applied atomic.Uint64
}

// start starts this node's replica of the meta group, if it has one.
func (m *meta) start(host *replica.Host, self *Membership) error {
	members := make(map[shard.ReplicaID]string)
	var own shard.ReplicaID
	for i, f := range self.Founding.metaMembers() {
		members[shard.ReplicaID(i+1)] = f.PeerAddr
		if f.NodeID == self.NodeID {
			own = shard.ReplicaID(i + 1)
		}
	}
	if own == 0 {
		return nil
	}
	m.member, m.own = true, own
	cfg := m.node.raftConfig().GroupConfig(uint64(shard.MetaID), uint64(own), 0, false)
	cfg.SnapshotEntries, cfg.CompactionOverhead = 1000, 100
	return host.StartOnce(shard.MetaID, own, members, func(initial map[uint64]string) error {
		err := host.NodeHost().StartConcurrentReplica(initial, false, func(uint64, uint64) statemachine.IConcurrentStateMachine {
			machine := &metaMachine{state: placement.NewState(), publish: m.node.table.publish, applied: &m.applied}
			machine.show()
			return machine
		}, cfg)
		if err != nil {
			return fmt.Errorf("start the meta group: %w", err)
		}
		return nil
	})
}

// propose applies a command to the placement table. A refusal is a
// *placement.RefusedError; any other error leaves the outcome unknown.
func (m *meta) propose(ctx context.Context, c *placementpb.Command) (*placementpb.Result, error) {
	data, err := placement.EncodeCommand(c)
	if err != nil {
		return nil, err
	}
	raw, err := m.proposeBytes(ctx, data)
	if err != nil {
		return nil, fmt.Errorf("change the placement table: %w", err)
	}
	var result placementpb.Result
	if err := result.UnmarshalVT(raw); err != nil {
		return nil, fmt.Errorf("decode a placement result: %w", err)
	}
	return &result, placement.ResultError(&result)
}

const metaTimeout = 5 * time.Second

func (m *meta) proposeBytes(ctx context.Context, data []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, metaTimeout)
	defer cancel()
	if m.member {
		nh := m.node.host.NodeHost()
		result, err := nh.SyncPropose(ctx, nh.GetNoOPSession(uint64(shard.MetaID)), data)
		if errors.Is(err, dragonboat.ErrShardNotReady) {
			err = fmt.Errorf("the meta group has no leader: %w", shard.ErrUnavailable)
		}
		return result.Data, err
	}
	var errs []error
	for _, f := range m.node.self.Founding.metaMembers() {
		reply, err := routerpb.NewPeerClient(m.node.peers.at(f.PeerAddr).Conn()).ProposeMeta(ctx, &routerpb.ProposeMetaRequest{Command: data})
		if err == nil {
			return reply.Result, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// barrier returns a map that has every change that was acknowledged before the call.
func (m *meta) barrier(ctx context.Context) (*placement.Map, error) {
	if !m.member {
		return m.node.table.Map(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, metaTimeout)
	defer cancel()
	v, err := m.node.host.NodeHost().SyncRead(ctx, uint64(shard.MetaID), nil)
	if err != nil {
		return nil, fmt.Errorf("read the placement table: %w: %w", shard.ErrUnavailable, err)
	}
	return v.(*placement.Map), nil
}

// initialise makes the cluster's first map; a second time it does nothing.
func (m *meta) initialise(ctx context.Context) error {
	f := m.node.self.Founding
	splits, err := initialSplits(f.InitialSplits)
	if err != nil {
		return err
	}
	c := &placementpb.InitCluster{ClusterId: f.ClusterID, ReplicationFactor: uint32(f.ReplicationFactor), SplitKeys: splits}
	for _, n := range f.Founders {
		c.Nodes = append(c.Nodes, &placementpb.Node{NodeId: uint64(n.NodeID), Name: n.Name, PeerAddr: n.PeerAddr, Incarnation: n.Incarnation})
	}
	_, err = m.propose(ctx, &placementpb.Command{Body: &placementpb.Command_InitCluster{InitCluster: c}})
	return err
}

func initialSplits(s string) ([][]byte, error) {
	if s == "" {
		return nil, nil
	}
	return placement.ParseSplits(s)
}

// RecordCompaction implements router.Compactions.
func (m *meta) RecordCompaction(ctx context.Context, rev shard.Revision) error {
	_, err := m.propose(ctx, &placementpb.Command{Body: &placementpb.Command_RecordCompaction{
		RecordCompaction: &placementpb.RecordCompaction{Revision: int64(rev)},
	}})
	var refused *placement.RefusedError
	if errors.As(err, &refused) && refused.Code == placementpb.Code_COMPACTED {
		return shard.ErrCompacted
	}
	return err
}

// Compacted implements router.Compactions.
func (m *meta) Compacted() shard.Revision { return m.node.table.Map().Compacted() }

// AwaitCollected implements router.Compactions.
func (m *meta) AwaitCollected(ctx context.Context, rev shard.Revision) error {
	return m.node.host.WaitCollected(ctx, rev)
}

// leads reports whether this node leads the meta group, as far as it knows.
func (m *meta) leads() bool {
	leader, _ := m.node.host.Leader(shard.MetaID)
	return m.member && leader == m.own
}

// follow keeps the table of a node without a meta replica up to date, from whichever
// peer answers, until ctx ends.
func (m *meta) follow(ctx context.Context) {
	for ctx.Err() == nil {
		for _, f := range m.node.self.Founding.metaMembers() {
			if err := m.followOne(ctx, f.PeerAddr); ctx.Err() == nil {
				m.node.log.Debug("following the placement table ended", "peer", f.PeerAddr, "error", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(bootstrapPause):
		}
	}
}

// followOne takes updates from one peer until it has no more; the error says why.
func (m *meta) followOne(ctx context.Context, addr string) error {
	stream, err := routerpb.NewPeerClient(m.node.peers.at(addr).Conn()).FollowMap(ctx, &routerpb.FollowMapRequest{Version: m.node.table.Map().Version()})
	if err != nil {
		return err
	}
	for {
		msg, err := stream.Recv()
		if err != nil {
			return err
		}
		var u placementpb.Update
		if err := u.UnmarshalVT(msg.Update); err != nil {
			return fmt.Errorf("decode an update of the placement table: %w", err)
		}
		next, err := m.node.table.Map().Apply(&u)
		if err != nil {
			return err
		}
		m.node.table.publish(next)
	}
}
