package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// RequestTimeout bounds a request that has no nearer deadline, as etcd's does.
const RequestTimeout = 7 * time.Second

// Revisions is what the process knows of the cluster's revisions.
type Revisions interface {
	// Seen is the largest revision this process knows of.
	Seen() shard.Revision
}

// Compactions is the cluster-wide record of compactions.
type Compactions interface {
	// RecordCompaction makes rev the compaction revision, or returns shard.ErrCompacted when one at
	// least as high is recorded. Afterwards Compacted returns it.
	RecordCompaction(ctx context.Context, rev shard.Revision) error
	// Compacted is the highest revision recorded, as far as this process knows.
	Compacted() shard.Revision
	// AwaitCollected waits until the replicas of this process have collected the garbage of a
	// compaction at rev.
	AwaitCollected(ctx context.Context, rev shard.Revision) error
}

// Config configures a Router.
type Config struct {
	// Self is the node the router runs on; 0 in a client. Reads prefer its replicas, except those
	// that are unfit according to Unfit; nil means that none is.
	Self        shard.NodeID
	Unfit       func(shard.ID) bool
	Cache       *Cache
	Sender      Sender
	Starter     Starter    // nil where every request is waited for
	Reader      Reader     // nil where there are no replicas
	Subscriber  Subscriber // nil where nobody watches
	Heeder      Heeder     // nil where there are no replicas
	Revisions   Revisions
	Compactions Compactions // nil where nobody compacts
	// Lanes bound the writes in flight to each shard. nil in a client, which leaves this to the
	// nodes and retries when it is refused.
	Lanes *admission.Lanes
	// ElectionTimeout is how long a shard may be without a leader before it elects another. The
	// shortest lease TTL is derived from it.
	ElectionTimeout time.Duration
	Logger          *slog.Logger
	Knobs           Knobs
}

// Knobs break the invariants on purpose, so that tests can show that the checkers detect it. The
// zero value breaks nothing.
type Knobs struct {
	SkipClose    bool // against T3: takes what each shard has, unclosed
	RetryUnknown bool // against T1
	SkipDetach   bool // against T7: leaves out the first span where a lease's keys are
	SlowRegister bool // breaks nothing: leaves time for a revocation between the steps of T6
}

// Router routes requests. It is safe for concurrent use.
type Router struct {
	cfg      Config
	closer   *closer
	settler  *settler
	renewer  *renewer
	patience patience

	// started are the asynchronous requests that have a goroutine.
	started struct {
		sync.Mutex
		closed bool
		work   sync.WaitGroup
	}
	// refused is how many of them an overloaded node has refused.
	refused atomic.Int64
}

// New returns a Router.
func New(cfg Config) *Router {
	r := &Router{cfg: cfg}
	r.closer = newCloser(r.closeSpan)
	r.settler = newSettler(r.probeHere)
	r.renewer = newRenewer(r.ask)
	return r
}

// Close waits for asynchronous requests, and then ends the router's shared background work.
// Requests started later fail, and synchronous ones fail soon because nothing can be sent any more.
func (r *Router) Close() {
	r.started.Lock()
	r.started.closed = true
	r.started.Unlock()
	r.started.work.Wait()
	r.renewer.stop()
	r.settler.stop()
	r.closer.stop()
}

// spawn runs f unless the router is closed.
func (r *Router) spawn(f func()) bool {
	r.started.Lock()
	defer r.started.Unlock()
	if !r.started.closed {
		r.started.work.Go(f)
	}
	return !r.started.closed
}

// ErrRequestTimeout distinguishes the end of RequestTimeout from the caller's own deadline.
var ErrRequestTimeout = errors.New("request timed out")

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, RequestTimeout, ErrRequestTimeout)
}

// retrying runs attempt until it succeeds or fails for good. attempt gets its number and looks
// everything up again.
func (r *Router) retrying(ctx context.Context, attempt func(n int) error) error {
	var b backoff
	for n := 0; ; n++ {
		err := attempt(n)
		if err == nil {
			return nil
		}
		retry := certain(err) || (r.cfg.Knobs.RetryUnknown && errors.Is(err, shard.ErrUnknownOutcome))
		if !retry {
			return r.final(ctx, err)
		}
		if !b.wait(ctx, err) {
			return r.final(ctx, err)
		}
	}
}

// final turns the error that ended a request into the caller's: the caller's own deadline or
// cancellation takes precedence, combined with the fact that a write may have been applied.
func (r *Router) final(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case cause == nil, errors.Is(cause, ErrRequestTimeout):
		return err
	case errors.Is(err, cause) && errors.Is(err, shard.ErrUnknownOutcome):
		return err
	case !errors.Is(err, shard.ErrUnknownOutcome):
		return fmt.Errorf("%w: %v", cause, err)
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// send sends the request to the node, updates the cache by the answer, and returns it.
func (r *Router) send(ctx context.Context, p Place, node shard.NodeID, req *Request) (*Reply, error) {
	if node == 0 {
		return nil, fmt.Errorf("shard %d has no replicas: %w", p.ID, shard.ErrUnavailable)
	}
	req.Shard, req.Epoch = p.ID, p.Epoch
	reply, err := r.cfg.Sender.Send(ctx, node, req)
	return r.settle(p, node, req, reply, err)
}

// settle classifies a node's answer and updates the cache by it.
func (r *Router) settle(p Place, node shard.NodeID, req *Request, reply *Reply, err error) (*Reply, error) {
	if err == nil {
		if req.forLeader() && p.Leader != node {
			r.cfg.Cache.SetLeader(p.ID, node)
		}
		return reply, nil
	}
	r.learn(p, node, err)
	if req.Op == routerpb.Op_OP_WRITE && !errors.Is(err, shard.ErrUnknownOutcome) && ambiguous(err) {
		err = fmt.Errorf("write to shard %d: %w: %w", p.ID, shard.ErrUnknownOutcome, err)
	}
	return nil, err
}

// learn corrects the cache according to an error.
func (r *Router) learn(p Place, node shard.NodeID, err error) {
	var wrongShard *shard.WrongShardError
	var notLeader *shard.NotLeaderError
	var noReplica *shard.NoReplicaError
	switch {
	case errors.As(err, &wrongShard):
		newer := false
		for _, d := range wrongShard.Descriptors {
			newer = newer || d.ID != p.ID || d.Generation > p.Generation
			r.cfg.Cache.Learn(d)
		}
		if !newer {
			r.cfg.Cache.Forget(p.ID)
		}
	case errors.As(err, &notLeader):
		r.cfg.Cache.SetLeader(p.ID, notLeader.Leader)
	case errors.As(err, &noReplica):
		r.cfg.Cache.Forget(p.ID)
	case errors.Is(err, shard.ErrUnavailable), errors.Is(err, shard.ErrStopped), errors.Is(err, shard.ErrUnknownOutcome), errors.Is(err, shard.ErrClockUntrusted):
		if p.Leader == node {
			r.cfg.Cache.SetLeader(p.ID, 0)
		}
	}
}

// writer chooses the node for the n-th attempt of a write: the known leader, else
// any replica, which will name the leader.
func (r *Router) writer(p Place, n int) shard.NodeID {
	switch preferred, ok := p.ReplicaOn(p.PreferredNode); {
	case p.Leader != 0:
		return p.Leader
	case r.cfg.Self == 0 && n == 0 && ok && !preferred.Learner:
		return p.PreferredNode // the likely leader
	}
	return r.rotate(p, n)
}

// reader chooses the node for the n-th attempt of a read. Any replica can serve one;
// the local one saves a hop, and where there is none, the leader does.
func (r *Router) reader(p Place, n int) shard.NodeID {
	if r.cfg.Self == 0 && n%2 == 0 {
		return r.writer(p, n)
	}
	if n > 0 && p.Leader != 0 && n%2 == 1 {
		return p.Leader
	}
	return r.rotate(p, n)
}

// rotate starts with the own node's replica and then takes the others in turn. Learners may lag far
// behind and are left out.
func (r *Router) rotate(p Place, n int) shard.NodeID {
	own, here := r.ownReplica(p)
	if here && n == 0 && !own.Learner {
		return r.cfg.Self
	}
	var voters []shard.NodeID
	start := 0
	for _, replica := range p.Replicas {
		if replica.Learner || replica.Node == r.cfg.Self && !here {
			continue
		}
		if replica.Node == r.cfg.Self {
			start = len(voters)
		}
		voters = append(voters, replica.Node)
	}
	if len(voters) == 0 {
		return 0
	}
	return voters[(start+n)%len(voters)]
}

// ownReplica is the shard's replica on this node, unless that is unfit.
func (r *Router) ownReplica(p Place) (shard.Replica, bool) {
	own, ok := p.ReplicaOn(r.cfg.Self)
	if !ok || r.cfg.Unfit != nil && r.cfg.Unfit(p.ID) {
		return shard.Replica{}, false
	}
	return own, true
}

// turn waits until admission allows a write to the shard that owns key (T8).
func (r *Router) turn(ctx context.Context, key []byte) (admission.Turn, error) {
	p, ok := r.cfg.Cache.find(key)
	if !ok {
		return admission.Turn{}, nil // a node that knows no shards has sent them nothing
	}
	return r.cfg.Lanes.Enter(ctx, p.ID)
}

// write sends a command to the shard that owns key once admission allows it, retrying as far as is
// safe (T1).
func (r *Router) write(ctx context.Context, key []byte, req Request) (*Reply, error) {
	turn, err := r.turn(ctx, key)
	if err != nil {
		return nil, err
	}
	reply, err := r.writeNow(ctx, key, req)
	turn.Leave(err)
	return reply, err
}

func (r *Router) writeNow(ctx context.Context, key []byte, req Request) (*Reply, error) {
	if p, ok := r.cfg.Cache.find(key); ok {
		if reply, err, done := r.writeSoon(ctx, p, req); done {
			return reply, err
		}
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	var reply *Reply
	err := r.retrying(ctx, func(n int) error {
		p, err := r.cfg.Cache.Lookup(ctx, key)
		if err != nil {
			return err
		}
		reply, err = r.writeTo(ctx, p, n, req)
		return err
	})
	return reply, err
}

// writeSoon sends a write to the shard at p once, without a context of its own: the common case. If
// it returns false there was no leader to send it to, or the failure was certain, and the caller
// starts over (T1).
func (r *Router) writeSoon(ctx context.Context, p Place, req Request) (*Reply, error, bool) {
	if p.Leader == 0 || r.cfg.Knobs.RetryUnknown {
		return nil, nil, false
	}
	req.GiveUp = r.patience.begin()
	reply, err := r.writeTo(ctx, p, 0, req)
	switch {
	case err == nil:
		return reply, nil, true
	case errors.Is(err, ErrRequestTimeout): // certain or not
	case certain(err):
		(&backoff{}).wait(ctx, err)
		return nil, nil, false
	}
	return nil, r.final(ctx, err), true
}

// writeOnce sends a command to the shard at p.
func (r *Router) writeOnce(ctx context.Context, p Place, n int, req Request) (*Reply, error) {
	req.Command.Epoch = p.Epoch
	return r.send(ctx, p, r.writer(p, n), &req)
}

// again turns an unknown outcome into a certain failure, for an idempotent command, which may be
// retried after any answer.
func again(err error) error {
	if !errors.Is(err, shard.ErrUnknownOutcome) {
		return err
	}
	return fmt.Errorf("%w: %v", shard.ErrUnavailable, err)
}

// closeSpan makes the shards that own the span promise that no later write gets a
// revision at or below floor.
func (r *Router) closeSpan(ctx context.Context, span shard.Span, floor shard.Revision) error {
	return r.walk(ctx, span, func(p Place, n int, _ shard.Span) error {
		_, err := r.writeOnce(ctx, p, n, mark(shardpb.Kind_CLOSE, floor))
		return again(err)
	})
}

// visit processes the part of a span that the shard at p owns, in the n-th attempt. It is called
// again, with updated knowledge, for as long as its error is certain.
type visit func(p Place, n int, part shard.Span) error

// walk visits every part of the span in key order; shards may have split since the caller looked
// them up.
func (r *Router) walk(ctx context.Context, span shard.Span, f visit) error {
	for {
		var rest []byte
		err := r.retrying(ctx, func(n int) error {
			p, err := r.cfg.Cache.Lookup(ctx, span.Start)
			if err != nil {
				return err
			}
			if err := f(p, n, span.Intersect(p.Span)); err != nil {
				return err
			}
			rest = after(span, p.Span)
			return nil
		})
		if err != nil || rest == nil {
			return err
		}
		span.Start = rest
	}
}

// everywhere visits every part of disjoint spans, all shards concurrently. No key is in two parts
// (T5).
func (r *Router) everywhere(ctx context.Context, spans []shard.Span, f visit) error {
	var parts []shard.Span
	err := r.retrying(ctx, func(int) error {
		parts = parts[:0]
		for _, span := range spans {
			places, err := r.cfg.Cache.Cover(ctx, span)
			if err != nil {
				return err
			}
			for _, p := range places {
				// A place that was looked up later may overlap the one before it.
				if part := span.Intersect(p.Span); !part.Empty() {
					parts = append(parts, part)
				}
				span.Start = p.Span.End
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() { errs[i] = r.walk(ctx, part, f) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// after is the start of what remains of a span after the part that one shard owns, nil when nothing
// remains.
func after(span, owned shard.Span) []byte {
	end := span.Intersect(owned).End
	if bytes.Equal(end, span.End) {
		return nil
	}
	return end
}
