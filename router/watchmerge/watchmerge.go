package watchmerge

import (
	"context"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// pace is the least time between two Closes of a shard for the sake of watches. What a
// busy shard writes waits for idle ones this long at most; each Close is a log entry.
const pace = 5 * time.Millisecond

// Merger opens watches and closes shards for them. It is safe for concurrent use.
type Merger struct {
	router *router.Router
	knobs  Knobs

	// ctx ends with Close; work is what opens parts and closes shards.
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu struct {
		sync.Mutex
		closed   bool
		closings map[shard.ID]*closing
	}
}

// New returns a Merger. It works until Close.
func New(r *router.Router, k Knobs) *Merger {
	m := &Merger{router: r, knobs: k}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.mu.closings = make(map[shard.ID]*closing)
	return m
}

// Close ends what is under way and waits for it. Watches that are still open end with
// shard.ErrStopped.
func (m *Merger) Close() {
	m.mu.Lock()
	m.mu.closed = true
	m.mu.Unlock()
	m.cancel()
	m.work.Wait()
}

// spawn runs f unless the Merger is closed.
func (m *Merger) spawn(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mu.closed {
		m.work.Go(f)
	}
}

// closing is the closing of one shard: one Close at a time, with a pause behind it. It is
// guarded by Merger.mu.
type closing struct {
	place   router.Place
	floor   shard.Revision
	waiting []*part // who asked since the last Close began
}

// closeFor asks for the part's shard to be closed to floor. There is no answer: the
// part's feed tells. If it fails the part is told so, to ask again if it still wants to.
func (m *Merger) closeFor(p *part, place router.Place, floor shard.Revision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return
	}
	c := m.mu.closings[place.ID]
	if c == nil {
		c = &closing{place: place}
		m.mu.closings[place.ID] = c
		m.work.Go(func() { m.closeShard(place.ID, c) })
	}
	if place.Epoch >= c.place.Epoch {
		c.place = place
	}
	c.floor = max(c.floor, floor)
	c.waiting = append(c.waiting, p)
}

// closeShard closes a shard as long as somebody asks.
func (m *Merger) closeShard(id shard.ID, c *closing) {
	for failures := 0; ; {
		m.mu.Lock()
		if len(c.waiting) == 0 {
			delete(m.mu.closings, id)
			m.mu.Unlock()
			return
		}
		// What has been seen by now will wait for this shard in a moment: close it to that.
		place, floor, waiting := c.place, max(c.floor, m.router.Seen()), c.waiting
		c.waiting = nil
		m.mu.Unlock()
		if err := m.router.CloseShard(m.ctx, place, floor); err != nil {
			failures++
			for _, p := range waiting {
				p.closeFailed()
			}
		} else {
			failures = 0
		}
		if !m.pause() || !router.Pause(m.ctx, failures) {
			return
		}
	}
}

// pause waits for pace; it returns false when the Merger is closed first.
func (m *Merger) pause() bool {
	t := time.NewTimer(pace)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-m.ctx.Done():
		return false
	}
}
