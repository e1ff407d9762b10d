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

// RequestTimeout bounds a request that came without a nearer deadline, as etcd's.
const RequestTimeout = 7 * time.Second

// Revisions is what the process has seen of the cluster's revisions.
type Revisions interface {
	// Seen is the largest revision this process knows was minted.
	Seen() shard.Revision
}

// Compactions is the cluster-wide record of history that may go.
type Compactions interface {
	// RecordCompaction makes rev the compaction revision, or returns
	// shard.ErrCompacted when one at least as high is recorded. Compacted knows it then.
	RecordCompaction(ctx context.Context, rev shard.Revision) error
	// Compacted is the highest revision recorded, as far as this process knows.
	Compacted() shard.Revision
	// AwaitCollected waits until the replicas of this process have removed what a
	// compaction at rev lets go.
	AwaitCollected(ctx context.Context, rev shard.Revision) error
}

// Config is what a Router works with.
type Config struct {
	// Self is the node the router runs on; 0 in a client. Reads prefer its replicas, but for
	// those that Unfit says serve nothing; nil is none.
	Self  shard.NodeID
	Unfit func(shard.ID) bool
	// Silent reports whether a node does not answer: what was sent to it would wait until its
	// connection is given up. Another is asked first, as far as one may serve; nil: all answer.
	Silent      func(shard.NodeID) bool
	Cache       *Cache
	Sender      Sender
	Starter     Starter    // nil where every request is waited for
	Reader      Reader     // nil where there are no replicas
	Subscriber  Subscriber // nil where nobody watches
	Heeder      Heeder     // nil where there are no replicas
	Revisions   Revisions
	Compactions Compactions // nil where nobody compacts
	// Lanes hold writes back from shards that are slower than they come. nil: a client leaves
	// that to the nodes, and comes again when it is refused.
	Lanes *admission.Lanes
	// ElectionTimeout is how long a shard may be without a leader before it looks for
	// another. The shortest TTL of leases is made from it.
	ElectionTimeout time.Duration
	Logger          *slog.Logger
	Knobs           Knobs
}

// Knobs break the invariants on purpose, so that tests can show that the checkers
// notice. The zero value breaks nothing.
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

	// started are the requests that nobody waits for and that run on a goroutine.
	started struct {
		sync.Mutex
		closed bool
		work   sync.WaitGroup
	}
	// refused is how many of them a node had too much to do for.
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

// Close waits for requests that were started, and ends what the router does for no request
// in particular. What is started from then on fails, and others do soon when nothing can be
// sent any more.
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

// ErrRequestTimeout tells the end of RequestTimeout from the caller's own deadline.
var ErrRequestTimeout = errors.New("request timed out")

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, RequestTimeout, ErrRequestTimeout)
}

// retrying runs attempt until it succeeds or fails for good. attempt gets its number
// and looks everything up anew.
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

// final turns what ended a request into what its caller is told: the caller's own
// deadline or cancellation first, and with it that a write may have been applied.
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

// send asks the place, remembers what its answer tells about the map, and returns it.
func (r *Router) send(ctx context.Context, p Place, node shard.NodeID, req *Request) (*Reply, error) {
	if node == 0 {
		return nil, fmt.Errorf("shard %d has no replicas: %w", p.ID, shard.ErrUnavailable)
	}
	req.Shard, req.Epoch = p.ID, p.Epoch
	reply, err := r.cfg.Sender.Send(ctx, node, req)
	return r.settle(p, node, req, reply, err)
}

// settle makes of what a node answered what its request came to.
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

// learn corrects the cache by an error.
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
// any replica, which will name the leader. Of a leader that is silent another replica is asked
// once whether it leads still.
func (r *Router) writer(p Place, n int) shard.NodeID {
	switch preferred, ok := p.ReplicaOn(p.PreferredNode); {
	case p.Leader != 0 && (n > 0 || !r.silent(p.Leader)):
		return p.Leader
	case r.cfg.Self == 0 && n == 0 && ok && !preferred.Learner && !r.silent(p.PreferredNode):
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

// rotate starts with the own node's replica and goes round the others. Learners may
// lag far behind and are left out.
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
	for i := range voters {
		if node := voters[(start+n+i)%len(voters)]; !r.silent(node) {
			return node
		}
	}
	return voters[(start+n)%len(voters)]
}

func (r *Router) silent(node shard.NodeID) bool { return r.cfg.Silent != nil && r.cfg.Silent(node) }

// ownReplica is the shard's replica on this node, unless that serves nothing.
func (r *Router) ownReplica(p Place) (shard.Replica, bool) {
	own, ok := p.ReplicaOn(r.cfg.Self)
	if !ok || r.cfg.Unfit != nil && r.cfg.Unfit(p.ID) {
		return shard.Replica{}, false
	}
	return own, true
}

// turn waits until a write may be sent to the shard that owns key (T8).
func (r *Router) turn(ctx context.Context, key []byte) (admission.Turn, error) {
	p, ok := r.cfg.Cache.find(key)
	if !ok {
		return admission.Turn{}, nil // a node that knows no shards has sent them nothing
	}
	return r.cfg.Lanes.Enter(ctx, p.ID)
}

// write sends a command to the shard that owns key when it is its turn, as often as is
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

// writeSoon sends a write to the shard at p once, as most are sent, without a context of
// its own. If it returns false there was nothing to send to, or the answer was a certain
// failure, and the caller starts over (T1).
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

// again makes an unknown outcome a certain one, for a command that changes nothing the
// second time and so may be sent again after any answer, T1 or not.
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

// visit does something with the part of a span that the shard at p owns, in the n-th
// attempt. It is called again, with what is known then, for as long as its error is certain.
type visit func(p Place, n int, part shard.Span) error

// walk visits every part of the span, in key order: shards may have split since the
// caller looked.
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

// everywhere visits every part of disjoint spans, all shards at the same time. No key is
// in two parts (T5).
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
				// One that was looked up later may reach back into the one before it.
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

// after is where the rest of a span starts behind the part that one shard owns, nil
// when there is none.
func after(span, owned shard.Span) []byte {
	end := span.Intersect(owned).End
	if bytes.Equal(end, span.End) {
		return nil
	}
	return end
}
