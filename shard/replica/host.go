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
	"github.com/flotilla-kv/flotilla/internal/workers"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// HostConfig configures a Host.
type HostConfig struct {
	Node shard.NodeID
	// Incarnation is chosen at random at every process start (P1).
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
	// Busy returns a function that reports, to one caller, the share of the machine's CPU time in
	// use since its last call. Default: none, so that neither batches nor reads ever wait for
	// others.
	Busy func() func() float64
	// Spaced, if set, is called whenever batches begin to start at that interval, or, with 0,
	// without one.
	Spaced func(apart time.Duration)
	// Doubted, if set, is called, on any goroutine, when a read has found that the data of a replica is damaged.
	// It must not block.
	Doubted func(shard.ID)
	// SnapshotRate bounds the bytes per second of snapshots that the node sends, over all replicas
	// that join or were away for long. 0 is no bound.
	SnapshotRate int64
	Apply        apply.Options // Watches, Node, Checksum and Gone come from the Host
	Knobs        Knobs
}

// Host runs the replicas of one node. It is safe for concurrent use.
type Host struct {
	cfg      HostConfig
	nh       *dragonboat.NodeHost
	entrance entrance
	wakeups  wakeups
	opened   time.Time // before nh was opened
	doorway  *doorway
	barriers *barriers
	workers  workers.Pool // run reads, and work that no request waits for
	cuts     sync.WaitGroup
	cutting  sync.Mutex // held by the shard that prepares to have its log truncated

	collector *collector
	summing   *summing
	pace      pace
	tempo     *tempo
	muster    muster
	convoy    convoy

	// updates counts the batches that replicas have applied.
	updates atomic.Uint64

	replicas sync.Map // shard.ID -> *Replica
	leaders  sync.Map // shard.ID -> leadership, also of the meta group
	heirs    sync.Map // shard.ID -> uint64, the term of the leader that last handed over to this node's replica
	changed  chan struct{}

	held struct {
		sync.Mutex
		replicas map[Held]struct{}
	}
	records  sync.Mutex // held while a replica's record is changed
	removing sync.Mutex // held while a replica's data is removed
	// ended holds replicas that stopped while the host continued, shard.ID -> shard.ReplicaID: their group has
	// removed them, or this node is removing them.
	ended sync.Map

	// sequence numbers the batches of all replicas together, because a replica that is stopped and started again, or
	// comes back under a new ID, meets its own batches in the log (P1).
	sequence atomic.Uint64
	// encodings are buffers for the batches of all replicas.
	encodings encodings
}

// OpenHost opens the node's Raft machinery. No replica runs yet.
func OpenHost(cfg HostConfig) (*Host, error) {
	cfg.Apply.Watches, cfg.Apply.Node = cfg.Metrics.watches, cfg.Node
	if cfg.Clock == nil {
		cfg.Clock = clock.System{}
	}
	if cfg.Busy == nil {
		cfg.Busy = func() func() float64 { return func() float64 { return 0 } }
	}
	h := &Host{
		cfg: cfg, opened: time.Now(), tempo: newTempo(cfg.Busy(), batchSpacings()), changed: make(chan struct{}, 1),
		pace: pace{rate: cfg.SnapshotRate, sent: cfg.Metrics.sent},
	}
	h.tempo.moved, h.tempo.early = cfg.Spaced, h.muster.early
	h.collector = newCollector(h)
	h.summing = newSumming(cfg.Logger, cfg.Metrics)
	if err := h.loadHeld(); err != nil {
		return nil, err
	}
	adoptRaftLog(cfg.Logger)
	if err := settle(); err != nil {
		return nil, err
	}
	h.doorway = &doorway{TransportFactory: cfg.Raft.Transport, entries: h.muster.join}
	cfg.Raft.Transport = h.doorway
	nh, err := openNodeHost(cfg.Raft, h, &h.wakeups)
	if err != nil {
		return nil, err
	}
	h.nh, h.entrance.nh = nh, nh
	h.barriers = &barriers{
		entrance: &h.entrance, slack: ticksSlack * cfg.Raft.TickInterval, metrics: cfg.Metrics, workers: &h.workers, tempo: newTempo(cfg.Busy(), roundSpacings()),
	}
	h.collector.start()
	h.summing.start()
	return h, nil
}

// Close stops all replicas. The engine stays open. Nobody calls the host any more (P15).
func (h *Host) Close() {
	h.collector.close()
	h.entrance.close() // before dragonboat closes: proposers and read barriers go on until they are told
	h.nh.Close()
	h.cuts.Wait() // they use the engine
	h.workers.Close()
	h.summing.close() // after the replicas, because they begin sums
}

// now reads the clock that measures leases.
func (h *Host) now() time.Time { return h.cfg.Clock.Now() }

// Short reports whether CPU is scarce, so that batches of all shards start at common ticks.
func (h *Host) Short() bool { return h.tempo.spacing.Load() > 0 }

// NodeHost is the Raft machinery, for the meta group.
func (h *Host) NodeHost() *dragonboat.NodeHost { return h.nh }

// LeaderUpdated implements raftio.IRaftEventListener. It runs on a worker shared by all groups and
// never blocks (P4).
func (h *Host) LeaderUpdated(info raftio.LeaderInfo) {
	h.led(info)
	if r, ok := h.Replica(shard.ID(info.ShardID)); ok {
		r.proposer.leaderChanged()
		if info.LeaderID != 0 {
			r.barrier.leaderKnown()
		}
	}
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// LeadersChanged receives, coalesced, when some group's leader changed.
func (h *Host) LeadersChanged() <-chan struct{} { return h.changed }

// Leader returns the replica that leads the group, as far as this node knows, and the term; 0 when
// there is none.
func (h *Host) Leader(id shard.ID) (shard.ReplicaID, uint64) {
	v, ok := h.leaders.Load(id)
	if !ok {
		return 0, 0
	}
	l := v.(leadership)
	return shard.ReplicaID(l.LeaderID), l.Term
}

// Replica returns the node's replica of the shard, if it runs.
func (h *Host) Replica(id shard.ID) (*Replica, bool) {
	v, ok := h.replicas.Load(id)
	if !ok {
		return nil, false
	}
	return v.(*Replica), true
}

// Each calls f for every running replica.
func (h *Host) Each(f func(*Replica)) {
	h.replicas.Range(func(_, v any) bool {
		f(v.(*Replica))
		return true
	})
}

// Start starts this node's replica of the shard, for the first time or again. members are the
// group's initial members and their addresses; they matter at the first start only and must be the
// same on all of them.
func (h *Host) Start(id shard.ID, replicaID shard.ReplicaID, members map[shard.ReplicaID]string) error {
	return h.start(id, replicaID, birth{members: members})
}

// Join starts this node's replica of a shard that exists already: empty, or again. It receives
// everything from the group's leader as soon as that knows of it. learner says that it joins
// without a vote; it matters at the first start only.
func (h *Host) Join(id shard.ID, replicaID shard.ReplicaID, learner bool) error {
	return h.start(id, replicaID, birth{join: true, learner: learner})
}

func (h *Host) start(id shard.ID, replicaID shard.ReplicaID, b birth) error {
	if r, ok := h.Replica(id); ok {
		if r.replicaID == replicaID {
			return nil
		}
		return fmt.Errorf("start shard %d replica %d: replica %d has not ended: %w", id, replicaID, r.replicaID, shard.ErrUnavailable)
	}
	if was, ok := h.ended.Load(id); ok && was == replicaID {
		return fmt.Errorf("start shard %d replica %d, which has stopped: %w", id, replicaID, ErrRemoved)
	}
	var r *Replica
	options := h.cfg.Apply
	options.Checksum = func(index uint64) { r.sumUp(index) } // not called before the replica is started
	options.Gone = h.gone
	machine, err := apply.Open(h.cfg.Engine, id, replicaID, options)
	if err != nil {
		return fmt.Errorf("open shard %d: %w", id, err)
	}
	// The log may have nothing left to replay that would show these revisions.
	h.cfg.Source.Observe(machine.View().Rev)
	r = newReplica(h, id, replicaID, machine)
	record, err := h.record(id, replicaID)
	if err != nil {
		return err
	}
	if why := record.Quarantined; why != "" {
		r.quarantined.Store(&why)
	}
	r.reportUnfit()
	start := func(initial map[uint64]string, join, learner bool) error {
		// The replica must be in the map before the log replays into it.
		h.replicas.Store(id, r)
		h.collector.poke() // a walk may have been interrupted
		err := h.nh.StartOnDiskReplica(initial, join, func(uint64, uint64) statemachine.IOnDiskStateMachine {
			return &stateMachine{replica: r}
		}, h.cfg.Raft.GroupConfig(uint64(id), uint64(replicaID), learner))
		if err != nil {
			h.replicas.CompareAndDelete(id, r)
			return fmt.Errorf("start shard %d replica %d: %w", id, replicaID, notYet(err))
		}
		return nil
	}
	return h.startOnce(id, replicaID, b, start)
}

// notYet marks a start that failed only because the replica's previous run has not ended yet.
func notYet(err error) error {
	if errors.Is(err, dragonboat.ErrShardAlreadyExist) {
		return fmt.Errorf("%w: %w", shard.ErrUnavailable, err)
	}
	return err
}
