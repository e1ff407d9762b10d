package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/statemachine"

	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// recordKind is the kind of the engine's local record that holds a ReplicaRecord.
const recordKind byte = 2

// HostConfig is what a Host works with.
type HostConfig struct {
	Node shard.NodeID
	// Incarnation is drawn anew at every process start (P1).
	Incarnation uint64
	Engine      *engine.Engine
	Raft        RaftConfig
	Source      RevisionSource
	Logger      *slog.Logger
	Metrics     *Metrics
	// ProposalTimeout is how long a proposal may stay without an outcome before it
	// is reported as unknown. Default 5 s.
	ProposalTimeout time.Duration
	// Clock measures leases. Only the differences of its readings count, and they must be
	// monotonic. Default: the machine's.
	Clock clock.Clock
	Apply apply.Options // Watches comes from Metrics
	Knobs Knobs
}

// Host runs the replicas of one node. It is safe for concurrent use.
type Host struct {
	cfg      HostConfig
	nh       *dragonboat.NodeHost
	barriers *barriers

	collector *collector

	replicas sync.Map // shard.ID -> *Replica
	leaders  sync.Map // shard.ID -> raftio.LeaderInfo, also of the meta group
	changed  chan struct{}

	// sequence numbers the batches of all replicas: a replica that is stopped and started
	// again, or comes back under a new ID, meets its own batches in the log (P1).
	sequence atomic.Uint64
}

// OpenHost opens the node's Raft machinery. No replica runs yet.
func OpenHost(cfg HostConfig) (*Host, error) {
	cfg.Apply.Watches = cfg.Metrics.watches
	if cfg.Clock == nil {
		cfg.Clock = clock.System{}
	}
	h := &Host{cfg: cfg, changed: make(chan struct{}, 1)}
	h.collector = newCollector(h)
	adoptRaftLog(cfg.Logger)
	nh, err := OpenNodeHost(cfg.Raft, h)
	if err != nil {
		return nil, err
	}
	h.nh = nh
	h.barriers = &barriers{nh: nh, metrics: cfg.Metrics}
	h.collector.start()
	return h, nil
}

// Close stops all replicas. The engine stays open.
func (h *Host) Close() {
	h.collector.close()
	h.nh.Close()
}

// now reads the clock of leases.
func (h *Host) now() time.Time { return h.cfg.Clock.Now() }

// NodeHost is the Raft machinery, for the meta group.
func (h *Host) NodeHost() *dragonboat.NodeHost { return h.nh }

// LeaderUpdated implements raftio.IRaftEventListener. It runs on a worker shared by
// all groups and never blocks (P4).
func (h *Host) LeaderUpdated(info raftio.LeaderInfo) {
	h.leaders.Store(shard.ID(info.ShardID), info)
	h.cfg.Metrics.leaderChanges.Inc()
	if r, ok := h.Replica(shard.ID(info.ShardID)); ok {
		r.proposer.leaderChanged()
	}
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// LeadersChanged receives, coalesced, when some group's leader changed.
func (h *Host) LeadersChanged() <-chan struct{} { return h.changed }

// Leader returns the replica that leads the group, as far as this node knows, and
// the term; 0 when there is none.
func (h *Host) Leader(id shard.ID) (shard.ReplicaID, uint64) {
	v, ok := h.leaders.Load(id)
	if !ok {
		return 0, 0
	}
	info := v.(raftio.LeaderInfo)
	return shard.ReplicaID(info.LeaderID), info.Term
}

// Replica returns the node's replica of the shard, if it runs.
func (h *Host) Replica(id shard.ID) (*Replica, bool) {
	v, ok := h.replicas.Load(id)
	if !ok {
		return nil, false
	}
	return v.(*Replica), true
}

// Each calls f for every replica that runs.
func (h *Host) Each(f func(*Replica)) {
	h.replicas.Range(func(_, v any) bool {
		f(v.(*Replica))
		return true
	})
}

// Start starts this node's replica of the shard, anew or again. members are the
// group's first members and their addresses; they matter at the first start only
// and must be the same on all of them. preferred makes this member campaign first
// when the group is new.
func (h *Host) Start(id shard.ID, replicaID shard.ReplicaID, members map[shard.ReplicaID]string, preferred bool) error {
	if _, ok := h.replicas.Load(id); ok {
		return nil
	}
	machine, err := apply.Open(h.cfg.Engine, id, replicaID, h.cfg.Apply)
	if err != nil {
		return fmt.Errorf("open shard %d: %w", id, err)
	}
	// The log may have nothing left to replay that would say it.
	h.cfg.Source.Observe(machine.View().Rev)
	r := newReplica(h, id, replicaID, machine)
	start := func(initial map[uint64]string) error {
		first := uint64(0)
		if len(initial) > 0 && preferred {
			first = firstElectionTicks
		}
		// The replica must be found before the log replays into it.
		h.replicas.Store(id, r)
		h.collector.poke() // a walk may have been interrupted
		err := h.nh.StartOnDiskReplica(initial, false, func(uint64, uint64) statemachine.IOnDiskStateMachine {
			return &stateMachine{replica: r}
		}, h.cfg.Raft.GroupConfig(uint64(id), uint64(replicaID), first))
		if err != nil {
			h.replicas.Delete(id)
			return fmt.Errorf("start shard %d replica %d: %w", id, replicaID, err)
		}
		return nil
	}
	return h.StartOnce(id, replicaID, members, start)
}

// StartOnce calls start so that the replica is started empty at most once in its
// life (P5): with its group's first members the first time, with none afterwards.
func (h *Host) StartOnce(id shard.ID, replicaID shard.ReplicaID, members map[shard.ReplicaID]string, start func(initial map[uint64]string) error) error {
	raw, err := h.cfg.Engine.Local(id, replicaID, recordKind)
	if err != nil {
		return fmt.Errorf("read the record of shard %d replica %d: %w", id, replicaID, err)
	}
	var record shardpb.ReplicaRecord
	if err := record.UnmarshalVT(raw); err != nil {
		return fmt.Errorf("decode the record of shard %d replica %d: %w: %w", id, replicaID, shard.ErrCorrupt, err)
	}
	hasLog := h.nh.HasNodeInfo(uint64(id), uint64(replicaID))
	switch {
	case hasLog && record.Phase == shardpb.ReplicaRecord_NONE:
		return fmt.Errorf("shard %d replica %d has a Raft log but its data is gone; its node must be removed from the cluster and join again with an empty data directory: %w", id, replicaID, shard.ErrCorrupt)
	case !hasLog && record.Phase == shardpb.ReplicaRecord_STARTED:
		return fmt.Errorf("shard %d replica %d has data but its Raft log is gone (or the host name changed); its node must be removed from the cluster and join again with an empty data directory: %w", id, replicaID, shard.ErrCorrupt)
	}
	save := func(phase shardpb.ReplicaRecord_Phase) error {
		data, err := (&shardpb.ReplicaRecord{Format: 1, Phase: phase}).MarshalVT()
		if err != nil {
			return fmt.Errorf("encode the record of shard %d: %w", id, err)
		}
		b := h.cfg.Engine.NewBatch()
		err = errors.Join(b.Set(engine.LocalKey(id, replicaID, recordKind), data, nil), h.cfg.Engine.Commit(b), b.Close(), h.cfg.Engine.Sync())
		if err != nil {
			return fmt.Errorf("write the record of shard %d: %w", id, err)
		}
		return nil
	}
	if hasLog {
		if err := start(nil); err != nil {
			return err
		}
		if record.Phase == shardpb.ReplicaRecord_STARTED {
			return nil
		}
		// A crash had come between the two; without this, a log lost later would not be
		// noticed.
		return save(shardpb.ReplicaRecord_STARTED)
	}
	if len(members) == 0 { // dragonboat would end the process
		return fmt.Errorf("start shard %d replica %d anew: the group's first members are not known", id, replicaID)
	}
	// A crash between STARTING and STARTED leaves it open whether the replica ever
	// ran; it is then started anew, which is wrong only if its log was also lost within
	// these milliseconds.
	if err := save(shardpb.ReplicaRecord_STARTING); err != nil {
		return err
	}
	initial := make(map[uint64]string, len(members))
	for replica, addr := range members {
		initial[uint64(replica)] = addr
	}
	if err := start(initial); err != nil {
		return err
	}
	return save(shardpb.ReplicaRecord_STARTED)
}
