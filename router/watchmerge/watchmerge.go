package watchmerge

import (
	"context"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// pace is the minimum time between two requests to a shard to let watches progress. Besides the
// request itself, a busy shard's writes wait for idle shards at most this long.
const pace = 2 * time.Millisecond

// Merger opens watches and closes shards for them. It is safe for concurrent use.
type Merger struct {
	router *router.Router
	knobs  Knobs

	// ctx ends with Close; work are the goroutines that open parts and close shards.
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu struct {
		sync.Mutex
		closed   bool
		closings map[feeds]*closing
	}
}

// New returns a Merger. It works until Close.
func New(r *router.Router, k Knobs) *Merger {
	m := &Merger{router: r, knobs: k}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.mu.closings = make(map[feeds]*closing)
	return m
}

// Close ends the background work and waits for it. Watches that are still open end with
// shard.ErrStopped.
func (m *Merger) Close() {
	m.cancel() // first: who cannot spawn any more finds that ctx has ended
	m.mu.Lock()
	m.mu.closed = true
	m.mu.Unlock()
	m.work.Wait()
}

// spawn runs f unless the Merger is closed, and reports whether it does.
func (m *Merger) spawn(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mu.closed {
		m.work.Go(f)
	}
	return !m.mu.closed
}

// feeds are those of a shard that come from one node.
type feeds struct {
	shard shard.ID
	node  shard.NodeID
}

// closing makes feeds progress: one request at a time, followed by a pause. It is guarded by
// Merger.mu.
type closing struct {
	source  router.Source
	floor   shard.Revision
	waiting []*part // who asked since the last request began
}

// closeFor requests that the part's feed progress to floor, although its shard may have nothing to
// write. There is no answer: the feed itself reports it. If the request fails the part is told, so
// that it can ask again.
func (m *Merger) closeFor(p *part, floor shard.Revision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return
	}
	key := feeds{p.source.ID, p.source.Node}
	c := m.mu.closings[key]
	if c == nil {
		c = &closing{source: p.source}
		m.mu.closings[key] = c
		m.work.Go(func() { m.advance(key, c) })
	}
	if p.source.Epoch >= c.source.Epoch {
		c.source = p.source
	}
	c.floor = max(c.floor, floor)
	c.waiting = append(c.waiting, p)
}

// advance makes feeds progress as long as somebody asks.
func (m *Merger) advance(key feeds, c *closing) {
	for failures := 0; ; {
		began := time.Now()
		m.mu.Lock()
		if len(c.waiting) == 0 {
			delete(m.mu.closings, key)
			m.mu.Unlock()
			return
		}
		// Watches that have seen a revision by now will wait for this shard in a moment, so close up to the largest.
		source, floor, waiting := c.source, max(c.floor, m.router.Seen()), c.waiting
		c.waiting = nil
		m.mu.Unlock()
		if err := m.router.Advance(m.ctx, source, floor); err != nil {
			failures++
			for _, p := range waiting {
				p.closeFailed()
			}
		} else {
			failures = 0
		}
		if !m.pause(began.Add(pace)) || !router.Pause(m.ctx, failures) {
			return
		}
	}
}

// pause waits until a time; it returns false when the Merger is closed first.
func (m *Merger) pause(until time.Time) bool {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-m.ctx.Done():
		return false
	}
}
