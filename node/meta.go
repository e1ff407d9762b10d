package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/lni/dragonboat/v4/statemachine"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// metaMachine is the meta group's state machine for dragonboat: a shell around placement.State that
// publishes every new map on this node.
type metaMachine struct {
	state   *placement.State
	publish func(*placement.Map)
	applied *atomic.Uint64
	// current is the state's map, because Lookup runs concurrently with Update.
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

// show publishes what was applied.
func (m *metaMachine) show() {
	m.current.Store(m.state.Map())
	m.publish(m.state.Map())
}

// Lookup implements IConcurrentStateMachine: whatever the query, the answer is the map.
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

// meta is the node's access to the meta group: a replica of its own, or its peers. All requests to
// the group go to the node that leads it (metaleader.go).
type meta struct {
	node    *Node
	own     atomic.Uint64 // the replica that runs here, 0 if none does
	applied atomic.Uint64
	// handing is held shared by proposals, and exclusively while leadership is handed over.
	handing sync.RWMutex
}

// propose applies a command to the placement table, once (placement P10). A refusal is a
// *placement.RefusedError; any other error leaves the outcome unknown.
func (m *meta) propose(ctx context.Context, c *placementpb.Command) (*placementpb.Result, error) {
	c.CommandId, c.Since = max(rand.Uint64(), 1), m.node.table.Map().Version()
	data, err := placement.EncodeCommand(c)
	if err != nil {
		return nil, err
	}
	raw, err := atLeader(ctx, m, func(ctx context.Context) ([]byte, error) {
		return m.proposeOwn(ctx, data)
	}, func(ctx context.Context, peer routerpb.PeerClient) ([]byte, error) {
		reply, err := peer.ProposeMeta(ctx, &routerpb.ProposeMetaRequest{Command: data})
		return reply.GetResult(), err
	})
	if err != nil {
		return nil, fmt.Errorf("change the placement table: %w: %w", shard.ErrUnknownOutcome, err)
	}
	var result placementpb.Result
	if err := result.UnmarshalVT(raw); err != nil {
		return nil, fmt.Errorf("decode a placement result: %w", err)
	}
	return &result, placement.ResultError(&result)
}

// barrier returns a map that contains every change acknowledged before the call.
func (m *meta) barrier(ctx context.Context) (*placement.Map, error) {
	read, err := atLeader(ctx, m, m.readOwn, func(ctx context.Context, peer routerpb.PeerClient) (*placement.Map, error) {
		known := m.node.table.Map()
		msg, err := peer.ReadMeta(ctx, &routerpb.ReadMetaRequest{Version: known.Version()})
		if err != nil {
			return nil, err
		}
		return m.take(known, msg)
	})
	if err != nil {
		return nil, fmt.Errorf("read the placement table: %w: %w", shard.ErrUnavailable, err)
	}
	return read, nil
}

// initialise makes the cluster's first map; repeated, it does nothing.
func (m *meta) initialise(ctx context.Context) error {
	f := m.node.self.Founding
	splits, err := initialSplits(f.InitialSplits)
	if err != nil {
		return err
	}
	c := &placementpb.InitCluster{ClusterId: f.ClusterID, ReplicationFactor: uint32(f.ReplicationFactor), SplitKeys: splits}
	meta := shard.Descriptor{ID: shard.MetaID}
	for i, n := range f.metaMembers() {
		meta.Replicas = append(meta.Replicas, shard.Replica{ID: shard.ReplicaID(i + 1), Node: n.NodeID})
	}
	c.Meta = meta.Proto()
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
	if err != nil {
		return err
	}
	for {
		known, changed := m.node.table.next()
		if known.Compacted() >= rev {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the compaction to be in the own copy of the placement table: %w: %w", shard.ErrUnknownOutcome, context.Cause(ctx))
		}
	}
}

// Compacted implements router.Compactions.
func (m *meta) Compacted() shard.Revision { return m.node.table.Map().Compacted() }

// Renewal implements router.Compactions. A node of another version might not know that a COMPACT can raise revisions, and
// the state of its replicas would differ from that of the others. So none does before all nodes are upgraded, nor with
// builds whose version does not tell them apart.
func (m *meta) Renewal() shard.Revision {
	if !identifies(m.node.cfg.Version) {
		return 0
	}
	for _, n := range m.node.table.Map().Nodes() {
		if n.ServerVersion != m.node.cfg.Version {
			return 0
		}
	}
	return m.node.hlc.Seen()
}

// identifies reports whether all builds of the version are of the same source. Go calls a build without a commit (devel),
// and marks changes since the commit.
func identifies(version string) bool {
	return strings.HasPrefix(version, "v") && !strings.HasSuffix(version, "+dirty")
}

// AwaitCollected implements router.Compactions.
func (m *meta) AwaitCollected(ctx context.Context, rev shard.Revision) error {
	return m.node.host.WaitCollected(ctx, rev)
}
