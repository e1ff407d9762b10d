package router

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/shard"
)

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
	// Renewal is what a compaction raises the revision of shards to whose last write is older, so that a watch
	// can begin where somebody has read them. A shard has assigned it, or may at this time; 0: theirs are not raised.
	Renewal() shard.Revision
	// AwaitCollected waits until the replicas of this process have collected the garbage of a
	// compaction at rev.
	AwaitCollected(ctx context.Context, rev shard.Revision) error
}

// Config configures a Router.
type Config struct {
	// Self is the node the router runs on; 0 in a client. Reads prefer its replicas, except those
	// that are unfit according to Unfit; nil means that none is.
	Self  shard.NodeID
	Unfit func(shard.ID) bool
	// Silent reports whether a node does not answer: a request sent to it would wait until its
	// connection is given up. Another is asked first if one may serve; nil means that all answer.
	Silent      func(shard.NodeID) bool
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
