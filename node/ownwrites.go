package node

import (
	"container/list"
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// ownWrites are asynchronous writes to the node's own replicas. They end after
// router.RequestTimeout, whatever their shards do.
type ownWrites struct {
	mu struct {
		sync.Mutex
		under   list.List // of *ownWrite, in order of arrival
		watched bool      // a timer runs for the first
	}
}

// ownWrite is a router.Call.
type ownWrite struct {
	of    *ownWrites
	place *list.Element // guarded by ownWrites.mu; nil once the write has ended
	came  time.Time
	ended router.Ender
}

func (o *ownWrites) begin(end router.Ender) *ownWrite {
	w := &ownWrite{of: o, came: time.Now(), ended: end}
	o.mu.Lock()
	defer o.mu.Unlock()
	w.place = o.mu.under.PushBack(w)
	o.watch(router.RequestTimeout)
	return w
}

// watch checks after d for writes that take too long; mu is held.
func (o *ownWrites) watch(d time.Duration) {
	if !o.mu.watched {
		o.mu.watched = true
		time.AfterFunc(d, o.expire)
	}
}

func (o *ownWrites) expire() {
	now := time.Now()
	var late []*ownWrite
	o.mu.Lock()
	o.mu.watched = false
	for place := o.mu.under.Front(); place != nil; place = place.Next() {
		w := place.Value.(*ownWrite)
		if rest := router.RequestTimeout - now.Sub(w.came); rest > 0 {
			o.watch(rest)
			break
		}
		late = append(late, w)
	}
	o.mu.Unlock()
	for _, w := range late {
		w.Abandon(router.ErrRequestTimeout)
	}
}

// end marks the write as ended, and reports whether it had not ended before.
func (w *ownWrite) end() bool {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	if w.place == nil {
		return false
	}
	w.of.mu.under.Remove(w.place)
	w.place = nil
	return true
}

func (w *ownWrite) finish(reply *router.Reply, err error) {
	if w.end() {
		w.ended.End(reply, err)
	}
}

// Abandon implements router.Call. The write is in the shard's queue, and cannot leave it.
func (w *ownWrite) Abandon(cause error) {
	w.finish(nil, fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, cause))
}
