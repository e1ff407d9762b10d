package replica

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/internal/workers"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/listing"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
	"github.com/flotilla-kv/flotilla/shard/watch"
)

// Replica is this node's member of one shard's group.
type Replica struct {
	Members
	id        shard.ID
	replicaID shard.ReplicaID
	host      *Host
	machine   *apply.Machine
	proposer  proposer
	barrier   barrier
	reigning  reigning
	meter     meter
	ended     chan struct{} // closed by the state machine's Close

	// weaned is the View.Since of the last split or merge that the log was seen to begin after, for Weaned.
	weaned  atomic.Uint64
	weaning atomic.Uint64 // the last View.Since that Wean was called for
	cutting atomic.Bool   // the log is about to be truncated
	sending atomic.Int64  // until when, in nanoseconds of Host.now, the log is kept for who is sent a snapshot
	// quarantined says why the replica is unfit; nil if it is not (Quarantine).
	quarantined atomic.Pointer[string]
	disputed    atomic.Bool
	// checksum is the last one begun; nil before the first.
	checksum atomic.Pointer[Checksum]

	views struct {
		sync.Mutex
		waiters []viewWaiter
	}
	beginners atomic.Int64 // running calls of proposeOnceBegun
}

type viewWaiter struct {
	wanted  func(shard.View) bool
	reached chan struct{}
}

func newReplica(h *Host, id shard.ID, replicaID shard.ReplicaID, machine *apply.Machine) *Replica {
	r := &Replica{Members: h.Members(id, replicaID), id: id, replicaID: replicaID, host: h, machine: machine, ended: make(chan struct{})}
	r.proposer = proposer{
		entrance: &h.entrance, shardID: id, nodeID: h.cfg.Node, incarn: h.cfg.Incarnation,
		session: h.nh.GetNoOPSession(uint64(id)), timeout: h.cfg.ProposalTimeout, slack: h.barriers.slack, metrics: h.cfg.Metrics,
		sequence: &h.sequence, encodings: &h.encodings, knobs: h.cfg.Knobs, view: machine.View, meter: &r.meter,
		refused: r.notLeading, leaders: make(chan struct{}, 1), turn: make(chan struct{}, 1), overdue: time.NewTimer(h.cfg.ProposalTimeout),
		tempo: h.tempo, muster: &h.muster, convoy: &h.convoy, full: make(chan struct{}, 1),
	}
	r.proposer.overdue.Stop()
	r.proposer.mu.flights = make(map[uint64][]pending)
	r.proposer.promises = promises{
		id: id, node: h.cfg.Node, incarnation: h.cfg.Incarnation, source: h.cfg.Source, view: machine.View,
		propose: r.proposer.submit, knobs: h.cfg.Knobs, metrics: h.cfg.Metrics,
	}
	r.barrier = newBarrier(h.barriers, id)
	return r
}

// ID is the shard's ID.
func (r *Replica) ID() shard.ID { return r.id }

// ReplicaID is the member's ID in its group.
func (r *Replica) ReplicaID() shard.ReplicaID { return r.replicaID }

// View is what the replica has applied.
func (r *Replica) View() shard.View { return r.machine.View() }

// Leads reports whether this replica leads its group, as far as it knows.
func (r *Replica) Leads() bool {
	leader, _ := r.host.Leader(r.id)
	return leader == r.replicaID
}

// LeaderNode is the node that leads the group as far as known, or 0.
func (r *Replica) LeaderNode() shard.NodeID {
	leader, _ := r.host.Leader(r.id)
	d := r.View().Descriptor
	if leader == 0 || d == nil {
		return 0
	}
	return d.NodeOf(leader)
}

// Term is the Raft term of the last leader heard of.
func (r *Replica) Term() uint64 {
	_, term := r.host.Leader(r.id)
	return term
}

// Propose writes cmd through the log and calls done exactly once, from any goroutine, with its
// outcome (P2). done must not block. Only a leader accepts commands; any other replica answers
// NotLeaderError at once. Commands for a shard that is about to begin, or is being merged, wait for that.
func (r *Replica) Propose(cmd *shardpb.Command, done func(shard.Result)) {
	err := r.notLeading()
	if err == nil {
		err = r.refusing(cmd.Kind)
	}
	switch {
	case err == nil:
		r.proposer.submit(cmd, done)
	case !awakens(cmd.Kind) && r.Unfit() == "" && r.pauses(r.View()):
		r.proposeOnceBegun(cmd, err, done)
	default:
		done(shard.Result{Err: err})
	}
}

// awakens reports whether commands of this kind are for shards that serve nothing.
func awakens(k shardpb.Kind) bool {
	return k == shardpb.Kind_INIT || k == shardpb.Kind_FREEZE || k == shardpb.Kind_THAW
}

// notLeading returns nil while this replica leads, as far as it knows.
func (r *Replica) notLeading() error {
	if r.Leads() {
		return nil
	}
	return &shard.NotLeaderError{Shard: r.id, Leader: r.LeaderNode()}
}

// Barrier waits until the replica has applied every write that was acknowledged before the call, and returns its view
// at that moment.
func (r *Replica) Barrier(ctx context.Context) (shard.View, error) {
	if r.host.cfg.Knobs.SkipReadBarrier {
		return r.View(), nil
	}
	if err := r.barrier.wait(ctx); err != nil {
		return shard.View{}, err
	}
	return r.View(), nil
}

// StartBarrier is the asynchronous Barrier. done is called once, perhaps before StartBarrier
// returns, and must not block: others wait behind it.
func (r *Replica) StartBarrier(done func(shard.View, error)) {
	if r.host.cfg.Knobs.SkipReadBarrier {
		done(r.View(), nil)
		return
	}
	r.barrier.group.join(&r.barrier, func(err error) {
		if err != nil {
			done(shard.View{}, err)
			return
		}
		done(r.View(), nil)
	})
}

// Spawn runs f on another goroutine.
func (r *Replica) Spawn(f func()) { r.host.workers.Do(workers.Func(f)) }

// WaitFloor waits until this replica has applied a floor of at least the given revision. From then on everything at
// or below that revision is final here.
func (r *Replica) WaitFloor(ctx context.Context, floor shard.Revision) error {
	if err := r.waitView(ctx, func(v shard.View) bool { return v.Floor >= floor }); err != nil {
		return fmt.Errorf("wait for shard %d to close revision %d: %w", r.id, floor, err)
	}
	return nil
}

// commitPatience is how long a replica waits before it requests the commit index itself. While CPU
// is scarce, a leader delays the commit index to followers, unless a read asks for it.
const commitPatience = 20 * time.Millisecond

// waitView waits until wanted reports true for the replica's view.
func (r *Replica) waitView(ctx context.Context, wanted func(shard.View) bool) error {
	if wanted(r.View()) {
		return nil
	}
	w := viewWaiter{wanted: wanted, reached: make(chan struct{})}
	r.views.Lock()
	r.views.waiters = append(r.views.waiters, w)
	r.views.Unlock()
	r.wakeWaiters() // it may have been reached between the check and the append
	late := time.NewTimer(commitPatience)
	defer late.Stop()
	for {
		select {
		case <-w.reached:
			return nil
		case <-late.C:
			r.barrier.group.join(&r.barrier, nil)
		case <-ctx.Done():
			r.views.Lock()
			r.views.waiters = slices.DeleteFunc(r.views.waiters, func(o viewWaiter) bool { return o.reached == w.reached })
			r.views.Unlock()
			return context.Cause(ctx)
		}
	}
}

func (r *Replica) wakeWaiters() {
	r.views.Lock()
	defer r.views.Unlock()
	if len(r.views.waiters) == 0 {
		return
	}
	view := r.View()
	r.views.waiters = slices.DeleteFunc(r.views.waiters, func(w viewWaiter) bool {
		if !w.wanted(view) {
			return false
		}
		close(w.reached)
		return true
	})
}

// Range reads at a revision that the caller knows to be applied here; 0 means the latest applied.
func (r *Replica) Range(req *pb.RangeRequest, at shard.Revision) (*pb.RangeResponse, error) {
	r.meter.reads.Add(1)
	return r.machine.Range(req, at)
}

// GetHeld is Range for the latest version of one key, if that is in memory (apply.Machine).
func (r *Replica) GetHeld(key []byte, view shard.View) (*pb.RangeResponse, bool) {
	resp, ok := r.machine.GetHeld(key, view)
	if ok {
		r.meter.reads.Add(1)
	}
	return resp, ok
}

// Fetch reads one shard's part of a wider range; see listing.
func (r *Replica) Fetch(span shard.Span, at shard.Revision, o listing.FetchOptions) (listing.Fetched, error) {
	r.meter.reads.Add(1)
	return r.machine.FetchSpan(span, at, o)
}

// Hash hashes the span's keys at a revision, in one step of about bytesMax bytes.
func (r *Replica) Hash(span shard.Span, at shard.Revision, bytesMax int) (mvcc.Hashed, error) {
	return r.machine.HashSpan(span, at, bytesMax)
}

// ReadTxn evaluates a read-only transaction at a revision; 0 is the latest applied. room may be nil.
func (r *Replica) ReadTxn(req *pb.TxnRequest, at shard.Revision, room listing.Room) (*pb.TxnResponse, error) {
	r.meter.reads.Add(1)
	return r.machine.ReadTxn(req, at, room)
}

// Subscribe opens a feed of the changes this replica applies. It ends with shard.ErrStopped when
// the replica closes.
func (r *Replica) Subscribe(o watch.Options) (*watch.Subscription, error) {
	return r.machine.Subscribe(o)
}
