package router

import (
	"context"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

// settlePace is the longest pause between two probes of a shard for watches that are opened
// together, so that hundreds opened at once, as by a client that starts, cost few read barriers.
// The pause is as long as the last probe took: clients that open one watch after the other wait
// twice as long as necessary. A watch that is opened alone does not wait.
const settlePace = 5 * time.Millisecond

// settler lets watches that begin at the same time share the read barriers that determine their
// start: one probe per shard is in flight, and watches that arrive meanwhile share the next.
type settler struct {
	probe func(ctx context.Context, p Place) (shard.Revision, error)

	// ctx ends with stop; runs are the goroutines of run.
	ctx    context.Context
	cancel context.CancelFunc
	runs   sync.WaitGroup

	mu struct {
		sync.Mutex
		next map[closingKey]*settling // without an entry, no probe is in flight either
	}
}

// Settled receives the revision at which a watch begins. It is an alias, for packages that do not
// import this one.
type Settled = interface {
	// Settled must not block: others are told after it.
	Settled(rev shard.Revision, err error)
}

// settling are those that share a probe. It is guarded by settler.mu until the probe begins.
type settling struct{ waiting []Settled }

func newSettler(probe func(ctx context.Context, p Place) (shard.Revision, error)) *settler {
	s := &settler{probe: probe}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.mu.next = make(map[closingKey]*settling)
	return s
}

// stop ends the probes in flight and waits for them. Nothing may be started any more.
func (s *settler) stop() {
	s.cancel()
	s.runs.Wait()
}

// settle tells who, once, the result of a probe of the shard at p that begins after the call.
func (s *settler) settle(p Place, who Settled) {
	key := closingKey{p.ID, p.Epoch}
	s.mu.Lock()
	defer s.mu.Unlock()
	call, running := s.mu.next[key]
	if call == nil {
		call = &settling{}
		s.mu.next[key] = call
	}
	call.waiting = append(call.waiting, who)
	if !running {
		s.runs.Go(func() { s.run(key, p) })
	}
}

// run probes the shard until nobody waits.
func (s *settler) run(key closingKey, p Place) {
	for {
		s.mu.Lock()
		call := s.mu.next[key]
		if call == nil {
			delete(s.mu.next, key)
			s.mu.Unlock()
			return
		}
		s.mu.next[key] = nil
		s.mu.Unlock()
		began := time.Now()
		rev, err := s.probe(s.ctx, p)
		took := time.Since(began)
		for _, who := range call.waiting {
			who.Settled(rev, err)
		}
		if len(call.waiting) > 1 {
			s.pause(min(took, settlePace))
		}
	}
}

func (s *settler) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ctx.Done():
	}
}
