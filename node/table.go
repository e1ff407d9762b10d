package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
)

// table is the node's copy of the placement table. Its source is the node's replica of the meta group, or a peer that
// has one.
type table struct {
	current atomic.Pointer[placement.Map]
	learn   func(*placement.Auth) // called with every copy before others see it; set before the first

	mu struct {
		sync.Mutex
		changed chan struct{} // closed and replaced with every change
	}
}

func newTable() *table {
	t := &table{}
	t.current.Store(&placement.Map{})
	t.mu.changed = make(chan struct{})
	return t
}

// Map is the newest copy.
func (t *table) Map() *placement.Map { return t.current.Load() }

// publish replaces the copy, unless the copy is newer.
func (t *table) publish(m *placement.Map) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.Version() <= t.current.Load().Version() {
		return
	}
	if t.learn != nil {
		t.learn(m.Auth())
	}
	t.current.Store(m)
	close(t.mu.changed)
	t.mu.changed = make(chan struct{})
}

// next returns the copy and a channel that is closed when it is no longer the newest.
func (t *table) next() (*placement.Map, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current.Load(), t.mu.changed
}

// Lookup implements router.Directory.
func (t *table) Lookup(_ context.Context, key []byte) (*shard.Descriptor, error) {
	if d := t.Map().Lookup(key); d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("the placement table is not known yet: %w", shard.ErrUnavailable)
}
