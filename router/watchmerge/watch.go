package watchmerge

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// Watch is an open watch. Poll, Await and Close may be called from any goroutine.
type Watch struct {
	merger *Merger
	from   shard.Revision
	ready  func()

	// behind is how many parts the next Poll waits for. Until all of them have called ready, Poll could release
	// nothing, so what other parts have wakes nobody. So an event of many shards costs a watch two Polls, however
	// many shards there are.
	behind atomic.Int32
	prevKV bool // immutable, as those above

	mu      sync.Mutex     // guards all below and the fields of parts that say so
	first   part           // whose span begins where the watch's does
	merging *merging       // nil while first is the only part
	awaited shard.Revision // what Await wants
	target  shard.Revision // what all parts are to come to first
	err     error          // why the watch has ended
}

// merging is what a watch needs in addition once there is more than one part. Nearly all watches
// have one, and there may be thousands.
type merging struct {
	parts []*part // after the first, in key order, without gaps
	out   []*mvccpb.Event
}

// Options say what to watch.
type Options struct {
	Span shard.Span
	// From is the first revision wanted; above 0. It may lie in the future.
	From shard.Revision
	// PrevKV adds to each change what it replaced.
	PrevKV bool
}

// Open begins a watch. It contacts nobody: what is unreachable now is retried until it is
// reachable. ready is called whenever Poll may have something that it did not have before. It must
// not block, must not call the watch, and must not take a lock that is held while the watch is
// called, because it is called then, too.
func (m *Merger) Open(o Options, ready func()) *Watch {
	w := &Watch{merger: m, from: o.From, prevKV: o.PrevKV, ready: ready}
	w.first = part{watch: w, span: o.Span}
	// A replica of this node may be behind a compaction that was acknowledged here.
	if c := m.router.Compacted(); o.From < c {
		w.end(&shard.CompactedError{Compacted: c})
		ready()
		return w
	}
	if !w.first.openHere() {
		w.first.reopen()
	}
	return w
}

// Poll returns what can be delivered now. At most about max events are returned, always whole
// revisions (W3); if there are more, ready is called. Through says how far the span has certainly
// been delivered; with a first revision in the future it is below that until the span has reached
// it. An error ends the watch: a shard.CompactedError when history that has not been delivered yet
// is gone.
func (w *Watch) Poll(max int) (shard.Changes, error) {
	given, more, err := w.poll(max)
	if more {
		w.ready()
	}
	return given, err
}

func (w *Watch) poll(max int) (given shard.Changes, more bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.collect(max); err != nil {
		return shard.Changes{}, false, err
	}
	if m := w.merging; m != nil {
		w.release()
		given = w.give(max)
		more = len(m.out) > 0
	} else { // what one shard gives needs no merging
		given = shard.Changes{Events: w.first.held, Through: w.first.through}
		w.first.held = nil
	}
	w.aim()
	for p := range w.parts {
		p.hurry(w.target)
	}
	return given, w.await() || more, nil
}

// await waits for the parts that are behind the target. It reports whether a Poll can make progress
// as things are: all of them have called ready meanwhile, or none is behind and some part has.
func (w *Watch) await() bool {
	w.behind.Store(1) // so that no part is the last one yet
	n := 0
	for p := range w.parts {
		if p.feed == nil || p.full() || p.through >= w.target {
			continue // a full one can only wait for the one that lags most
		}
		n++
		w.behind.Add(1)
		p.waited.Store(true)
		if p.signalled.Load() && p.waited.Swap(false) { // it came before
			w.behind.Add(-1)
		}
	}
	if w.behind.Add(-1) > 0 {
		return false
	}
	if n > 0 {
		return true
	}
	for p := range w.parts {
		if p.more() {
			return true
		}
	}
	return false
}

// recall makes every part call ready again whenever it has something.
func (w *Watch) recall() {
	w.behind.Store(0)
	for p := range w.parts {
		p.waited.Store(false)
	}
}

// parts yields all parts, in key order; none once the watch has ended.
func (w *Watch) parts(yield func(*part) bool) {
	if w.err != nil || !yield(&w.first) || w.merging == nil {
		return
	}
	for _, p := range w.merging.parts {
		if !yield(p) {
			return
		}
	}
}

// Span is the watched span.
func (w *Watch) Span() shard.Span {
	w.mu.Lock()
	defer w.mu.Unlock()
	span := w.first.span
	if w.merging != nil {
		span.End = w.merging.parts[len(w.merging.parts)-1].span.End
	}
	return span
}

// Await asks for the watch to reach rev, and for ready to be called when it has. Lagging shards are
// asked to close.
func (w *Watch) Await(rev shard.Revision) {
	w.mu.Lock()
	w.awaited = max(w.awaited, rev)
	w.mu.Unlock()
	w.ready() // Poll finds out which parts are behind
}

// Close ends the watch. A call of ready in progress may still finish.
func (w *Watch) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end(shard.ErrStopped)
}

// end closes everything. A part that is just being opened for the watch is closed again.
func (w *Watch) end(err error) {
	if w.err != nil {
		return
	}
	for p := range w.parts {
		p.drop()
		p.held = nil
	}
	if w.merging != nil {
		w.merging.out = nil
	}
	w.err = err
}

// collect takes what the parts have, unless there is still something to give: each of many parts may
// have as much as is given at a time, and all of it would be kept. It returns why the watch ended.
func (w *Watch) collect(max int) error {
	w.recall()
	if w.err == nil && w.merger.ctx.Err() != nil {
		w.end(shard.ErrStopped)
	}
	if w.merging != nil && len(w.merging.out) > 0 { // W7
		return w.err
	}
	for p := range w.parts {
		if err := p.poll(max); err != nil {
			w.end(err)
			break
		}
	}
	return w.err
}

// through is the revision that all parts have reached.
func (w *Watch) through() shard.Revision {
	lowest := w.first.through
	for p := range w.parts {
		lowest = min(lowest, p.through)
	}
	return lowest
}

// release takes the events from the parts that no part can precede any more (W1, W3).
func (w *Watch) release() {
	through := w.sabotage(w.merger.knobs.Unmerged, w.through())
	m := w.merging
	from := len(m.out)
	for p := range w.parts {
		n := 0
		for n < len(p.held) && revision(p.held[n]) <= through {
			n++
		}
		m.out = append(m.out, p.held[:n]...)
		p.bytes -= shard.EventBytes(p.held[:n])
		p.held = p.held[n:]
		if len(p.held) == 0 {
			p.held = nil // a burst's memory is not kept
		}
	}
	// Those of one revision stay in the key order of their parts.
	slices.SortStableFunc(m.out[from:], func(a, b *mvccpb.Event) int { return cmp.Compare(revision(a), revision(b)) })
}

// aim sets the next target once the last one is reached: the last held revision, or the awaited
// one. There is one target at a time: later events share the next, so that many parts are not
// troubled for every event.
func (w *Watch) aim() {
	through := w.through()
	if through < w.target {
		return
	}
	if through >= w.awaited {
		w.awaited = 0
	}
	w.target = w.awaited
	for p := range w.parts {
		if n := len(p.held); n > 0 {
			w.target = max(w.target, revision(p.held[n-1]))
		}
	}
}

// give returns the next of the released events.
func (w *Watch) give(max int) shard.Changes {
	m := w.merging
	n := len(m.out)
	if n > max {
		for n = max; n < len(m.out) && revision(m.out[n]) == revision(m.out[n-1]); n++ {
		}
	}
	if n == len(m.out) {
		given := shard.Changes{Events: m.out, Through: w.sabotage(w.merger.knobs.FastestThrough, w.through())}
		m.out = nil
		return given
	}
	given := shard.Changes{Events: m.out[:n:n], Through: revision(m.out[n-1])}
	m.out = m.out[n:]
	return given
}

func revision(e *mvccpb.Event) shard.Revision { return shard.Revision(e.Kv.ModRevision) }

// split gives the rest of the part's span, from key on, to a part of its own, with the same
// progress. Events that the part holds stay with it: their revisions order them among all.
func (w *Watch) split(p *part, key []byte) *part {
	rest := &part{watch: w, span: shard.Span{Start: key, End: p.span.End}, through: p.through}
	p.span.End = key
	if w.merging == nil {
		w.merging = &merging{}
	}
	m := w.merging
	at := slices.Index(m.parts, p) // -1: the first
	m.parts = slices.Insert(m.parts, at+1, rest)
	return rest
}

var _ router.Feed = (*Watch)(nil)
