package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Checksum is the checksum of a replica's data as of an entry of the log.
type Checksum struct {
	Index uint64
	Done  bool // what follows is known
	Sum   uint64
	// Versions and Bytes are the amount of data covered.
	Versions, Bytes int64
	// Damage says why there is no checksum: the store's data cannot be read.
	Damage string
}

const (
	// sumStepBytes is the size of one step. With four times as much, steps under load took so long that sumRestMax was too
	// short a rest.
	sumStepBytes = 128 << 10
	// After each step it rests this many times as long as the step took, within the bounds. The longer rest is for when
	// others wait for CPUs: most sums are requested after a split, when a shard has most to do. It is no longer than that
	// because a replica is given up for which the others have waited checkFactor times as long as for the first (node).
	sumRestShare, sumRestShort = 9, 39
	sumRestMin, sumRestMax     = time.Millisecond, 50 * time.Millisecond
)

// Checksum returns the last checksum begun since the replica started; false if there is none.
func (r *Replica) Checksum() (Checksum, bool) {
	if c := r.checksum.Load(); c != nil {
		return *c, true
	}
	return Checksum{}, false
}

// SumUp makes all replicas of the group compute a checksum as of one entry of the log, and returns
// its index. Only the group's leader can do so.
func (r *Replica) SumUp(ctx context.Context) (uint64, error) {
	fail := func(err error) (uint64, error) { return 0, fmt.Errorf("sum up shard %s: %w", r.id, err) }
	body, err := (&shardpb.ChecksumCommand{Format: apply.ChecksumFormat}).MarshalVT()
	if err != nil {
		return fail(err)
	}
	d := r.View().Descriptor
	if d == nil {
		return fail(r.View().Absent(r.id))
	}
	done := make(chan shard.Result, 1)
	r.Propose(&shardpb.Command{Kind: shardpb.Kind_CHECKSUM, Epoch: d.Epoch, Body: body}, func(res shard.Result) { done <- res })
	select {
	case res := <-done:
		if res.Err != nil {
			return fail(res.Err)
		}
		return res.Response.(*shardpb.ChecksumAnswer).Index, nil
	case <-ctx.Done():
		return fail(fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, context.Cause(ctx)))
	}
}

// sumUp starts a sum of what has been applied, and abandons one in progress. It is called on the apply worker and
// waits for nothing (P4).
func (r *Replica) sumUp(index uint64) {
	view := r.View()
	if view.Descriptor == nil { // the rest of the entry has taken it away
		return
	}
	c := &Checksum{Index: index}
	r.checksum.Store(c)
	r.host.summing.begin(&sum{replica: r, begun: c, image: r.image(view)})
}

// sum is a checksum that is being computed, or waits to be.
type sum struct {
	replica *Replica
	begun   *Checksum
	image   *image
}

// outdated reports whether the replica has since begun another sum.
func (s *sum) outdated() bool { return s.replica.checksum.Load() != s.begun }

// summing computes the checksums of the node's replicas, one after the other (P10). It does nothing until asked.
type summing struct {
	log     *slog.Logger
	metrics *Metrics
	wake    chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup
	// waited returns how long goroutines had to wait for a CPU since the last call.
	waited func() time.Duration

	mu struct {
		sync.Mutex
		waiting []*sum
	}
}

func newSumming(log *slog.Logger, metrics *Metrics) *summing {
	g := &summing{log: log, metrics: metrics, wake: make(chan struct{}, 1), waited: newWaits().since}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

func (g *summing) start() { g.work.Go(g.run) }

// close stops it. No sum may begin any more.
func (g *summing) close() {
	g.cancel()
	g.work.Wait()
	for s := g.next(); s != nil; s = g.next() {
		s.image.data.Close()
	}
}

// begin adds a sum. A waiting sum of the same replica is dropped, and what it pins is released.
func (g *summing) begin(s *sum) {
	g.mu.Lock()
	g.mu.waiting = slices.DeleteFunc(g.mu.waiting, func(o *sum) bool {
		if o.replica != s.replica {
			return false
		}
		o.image.data.Close()
		return true
	})
	g.mu.waiting = append(g.mu.waiting, s)
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// next returns the sum that has waited longest, or nil if there is none.
func (g *summing) next() *sum {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.mu.waiting) == 0 {
		return nil
	}
	s := g.mu.waiting[0]
	g.mu.waiting = g.mu.waiting[1:]
	return s
}

func (g *summing) run() {
	for g.ctx.Err() == nil {
		s := g.next()
		if s == nil {
			select {
			case <-g.wake:
			case <-g.ctx.Done():
			}
			continue
		}
		done, err := g.sum(s)
		s.image.data.Close()
		switch {
		case err == nil && done == nil: // another sum has begun, or the node is stopping
		case err == nil:
			s.replica.checksum.CompareAndSwap(s.begun, done)
		case damage(err):
			s.replica.checksum.CompareAndSwap(s.begun, &Checksum{Index: s.begun.Index, Done: true, Damage: err.Error()})
		default:
			g.log.Error("cannot sum up a replica", "shard", s.replica.id, "error", err)
		}
	}
}

// sumRest returns how long to leave the CPU to others after a step. short: they wait for it.
func sumRest(took time.Duration, short bool) time.Duration {
	times := time.Duration(sumRestShare)
	if short {
		times = sumRestShort
	}
	return min(max(times*took, sumRestMin), sumRestMax)
}

// sum computes a checksum, in steps. It returns nil if it was abandoned.
func (g *summing) sum(s *sum) (done *Checksum, err error) {
	if s.outdated() {
		return nil, nil
	}
	view := s.image.view
	c, err := mvcc.NewChecksum(s.image.data, view.Descriptor.Span, view.Compacted)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	short := false // others wait for CPUs
	for {
		began, before, last := time.Now(), c.Bytes, false
		s.replica.host.cfg.Engine.Background(func() { last, err = c.Step(sumStepBytes) })
		if err != nil {
			return nil, err
		}
		g.metrics.summed.Add(float64(c.Bytes - before))
		if last {
			break
		}
		rest, resting := sumRest(time.Since(began), short), time.Now()
		select {
		case <-time.After(rest):
		case <-g.ctx.Done():
			return nil, nil
		}
		short = time.Since(resting)-rest > overslept || g.waited() > pressed
		if s.outdated() {
			return nil, nil
		}
	}
	if err := apply.AddState(c, view, s.image.leases.State()); err != nil {
		return nil, err
	}
	return &Checksum{Index: s.begun.Index, Done: true, Sum: c.Sum, Versions: c.Versions, Bytes: c.Bytes}, nil
}
