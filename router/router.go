package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

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
	// shard.ErrCompacted when one at least as high is recorded.
	RecordCompaction(ctx context.Context, rev shard.Revision) error
	// Compacted is the highest revision recorded, as far as this process knows.
	Compacted() shard.Revision
	// AwaitCollected waits until the replicas of this process have removed what a
	// compaction at rev lets go.
	AwaitCollected(ctx context.Context, rev shard.Revision) error
}

// Config is what a Router works with.
type Config struct {
	// Self is the node the router runs on; 0 in a client. Reads prefer its replicas.
	Self        shard.NodeID
	Cache       *Cache
	Sender      Sender
	Revisions   Revisions
	Compactions Compactions
	Logger      *slog.Logger
	Knobs       Knobs
}

// Knobs break the invariants on purpose, so that tests can show that the checkers
// notice. The zero value breaks nothing.
type Knobs struct {
	SkipClose    bool // against T3: takes what each shard has, unclosed
	RetryUnknown bool // against T1
}

// Router routes requests. It is safe for concurrent use.
type Router struct {
	cfg    Config
	closer *closer
}

// New returns a Router.
func New(cfg Config) *Router {
	r := &Router{cfg: cfg}
	r.closer = newCloser(r.closeSpan)
	return r
}

// Close ends what the router does for no request in particular. No request may be
// under way.
func (r *Router) Close() { r.closer.stop() }

// errRequestTimeout tells the end of RequestTimeout from the caller's own deadline.
var errRequestTimeout = errors.New("request timed out")

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, RequestTimeout, errRequestTimeout)
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
		if !b.wait(ctx) {
			return r.final(ctx, err)
		}
	}
}

// final turns what ended a request into what its caller is told: the caller's own
// deadline or cancellation first.
func (r *Router) final(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errRequestTimeout) {
		return cause
	}
	return err
}

// send asks the place, remembers what its answer tells about the map, and returns it.
func (r *Router) send(ctx context.Context, p Place, node shard.NodeID, req *Request) (*Reply, error) {
	if node == 0 {
		return nil, fmt.Errorf("shard %d has no replicas: %w", p.ID, shard.ErrUnavailable)
	}
	req.Shard, req.Epoch = p.ID, p.Epoch
	reply, err := r.cfg.Sender.Send(ctx, node, req)
	if err == nil {
		if req.Op == routerpb.Op_OP_WRITE && p.Leader != node {
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
// any replica, which will name the leader.
func (r *Router) writer(p Place, n int) shard.NodeID {
	if p.Leader != 0 {
		return p.Leader
	}
	return r.rotate(p, n)
}

// reader chooses the node for the n-th attempt of a read. Any replica can serve one;
// the local one saves a hop.
func (r *Router) reader(p Place, n int) shard.NodeID {
	if n > 0 && p.Leader != 0 && n%2 == 1 {
		return p.Leader
	}
	return r.rotate(p, n)
}

// rotate starts with the own node's replica and goes round the others. Learners may
// lag far behind and are left out.
func (r *Router) rotate(p Place, n int) shard.NodeID {
	if own, ok := p.ReplicaOn(r.cfg.Self); n == 0 && ok && !own.Learner {
		return r.cfg.Self
	}
	var voters []shard.NodeID
	own := 0
	for _, replica := range p.Replicas {
		if replica.Learner {
			continue
		}
		if replica.Node == r.cfg.Self {
			own = len(voters)
		}
		voters = append(voters, replica.Node)
	}
	if len(voters) == 0 {
		return 0
	}
	return voters[(own+n)%len(voters)]
}

// write sends a command to the shard that owns key, as often as is safe (T1).
func (r *Router) write(ctx context.Context, key []byte, req Request) (*Reply, error) {
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

func (r *Router) writeTo(ctx context.Context, p Place, n int, req Request) (*Reply, error) {
	req.Command.Epoch = p.Epoch
	return r.send(ctx, p, r.writer(p, n), &req)
}

// closeSpan makes the shards that own the span promise that no later write gets a
// revision at or below floor.
func (r *Router) closeSpan(ctx context.Context, span shard.Span, floor shard.Revision) error {
	return r.markSpan(ctx, span, shardpb.Kind_CLOSE, floor)
}

// markSpan sends a command that carries only a revision to every shard of the span, in
// key order: a shard may have split since its caller looked. Such a command changes
// nothing the second time, so it may be sent again after any answer, T1 or not.
func (r *Router) markSpan(ctx context.Context, span shard.Span, kind shardpb.Kind, rev shard.Revision) error {
	for {
		var rest []byte
		err := r.retrying(ctx, func(n int) error {
			p, err := r.cfg.Cache.Lookup(ctx, span.Start)
			if err != nil {
				return err
			}
			_, err = r.writeTo(ctx, p, n, mark(kind, rev))
			switch {
			case errors.Is(err, shard.ErrUnknownOutcome):
				return fmt.Errorf("%v of shard %d: %w: %v", kind, p.ID, shard.ErrUnavailable, err)
			case kind == shardpb.Kind_COMPACT && errors.Is(err, shard.ErrCompacted):
				// It was told already, by its own leader or by us.
			case err != nil:
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

// after is where the rest of a span starts behind the part that one shard owns, nil
// when there is none.
func after(span, owned shard.Span) []byte {
	end := span.Intersect(owned).End
	if bytes.Equal(end, span.End) {
		return nil
	}
	return end
}
