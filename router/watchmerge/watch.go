package watchmerge

import (
	"cmp"
	"slices"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// Watch is one watch under way. Poll, Await and Close may be called from any goroutine.
type Watch struct {
	merger *Merger
	from   shard.Revision
	prevKV bool
	ready  func()

	mu      sync.Mutex // guards all below and the fields of parts that say so
	parts   []*part    // in key order, without gaps
	first   part       // the one of parts that there always is
	single  [1]*part   // parts, while there are no more
	out     []*mvccpb.Event
	awaited shard.Revision // what Await wants
	target  shard.Revision // what all parts are to come to first
	err     error          // why the watch has ended
}

// Options say what to watch.
type Options struct {
	Span shard.Span
	// From is the first revision wanted; above 0. It may lie in the future.
	From shard.Revision
	// PrevKV adds to each change what it replaced.
	PrevKV bool
}

// Open begins a watch. It asks nobody anything: what cannot be reached now is tried until
// it can. ready is called whenever Poll may have something that it did not have before. It
// must not block, must not call the watch, and must not take a lock that is held while the
// watch is called: it is called then, too.
func (m *Merger) Open(o Options, ready func()) *Watch {
	w := &Watch{merger: m, from: o.From, prevKV: o.PrevKV, ready: ready}
	w.first = part{watch: w, span: o.Span}
	w.single[0] = &w.first
	w.parts = w.single[:]
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

// Poll returns what can be given now. At most about max events are returned, whole
// revisions always (W3); if that was not all, ready is called. Through says what of the
// span has been given for certain; with a first revision in the future it is below that
// until the span has come there. An error ends the watch: a shard.CompactedError when
// history that has not been given yet is gone.
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
	if len(w.parts) == 1 {
		// What one shard gives needs no merging.
		p := w.parts[0]
		if len(w.out) == 0 {
			w.out = p.held // shared with others who watch the same
		} else {
			w.out = append(w.out, p.held...)
		}
		p.held = nil
	} else {
		w.release()
	}
	w.aim()
	for _, p := range w.parts {
		p.hurry(w.target)
		more = more || p.more()
	}
	given = w.give(max)
	return given, more || len(w.out) > 0, nil
}

// Await has the watch come to rev, and says ready when it has. Shards that are behind
// are asked to close.
func (w *Watch) Await(rev shard.Revision) {
	w.mu.Lock()
	w.awaited = max(w.awaited, rev)
	w.mu.Unlock()
	w.ready() // Poll finds out who is behind
}

// Close ends the watch. ready may still be called by what runs already.
func (w *Watch) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end(shard.ErrStopped)
}

// end closes everything. Whoever opens a part for the watch meanwhile closes it again.
func (w *Watch) end(err error) {
	if w.err != nil {
		return
	}
	w.err = err
	for _, p := range w.parts {
		p.drop()
	}
	w.parts, w.out = nil, nil
}

// collect takes what the parts have. It returns why the watch ended.
func (w *Watch) collect(max int) error {
	if w.err == nil && w.merger.ctx.Err() != nil {
		w.end(shard.ErrStopped)
	}
	for _, p := range w.parts {
		if err := p.poll(max); err != nil {
			w.end(err)
		}
	}
	return w.err
}

// through is how far all parts have come.
func (w *Watch) through() shard.Revision {
	lowest := w.parts[0].through
	for _, p := range w.parts[1:] {
		lowest = min(lowest, p.through)
	}
	return lowest
}

// release takes from the parts what none of them can come before any more (W1, W3).
func (w *Watch) release() {
	through := w.sabotage(w.merger.knobs.Unmerged, w.through())
	from := len(w.out)
	for _, p := range w.parts {
		n := 0
		for n < len(p.held) && revision(p.held[n]) <= through {
			n++
		}
		w.out = append(w.out, p.held[:n]...)
		p.held = p.held[n:]
		if len(p.held) == 0 {
			p.held = nil // a burst's memory is not kept
		}
	}
	// Those of one revision stay in key order of their parts.
	slices.SortStableFunc(w.out[from:], func(a, b *mvccpb.Event) int { return cmp.Compare(revision(a), revision(b)) })
}

// aim sets the next target once the last one is reached: the last of what is held, and
// what is awaited. One at a time: what comes meanwhile goes with the next, so that many
// parts are not troubled for every event.
func (w *Watch) aim() {
	through := w.through()
	if through < w.target {
		return
	}
	if through >= w.awaited {
		w.awaited = 0
	}
	w.target = w.awaited
	if len(w.parts) > 1 {
		for _, p := range w.parts {
			if n := len(p.held); n > 0 {
				w.target = max(w.target, revision(p.held[n-1]))
			}
		}
	}
}

// give returns the next events that are due.
func (w *Watch) give(max int) shard.Changes {
	n := len(w.out)
	if n > max {
		for n = max; n < len(w.out) && revision(w.out[n]) == revision(w.out[n-1]); n++ {
		}
	}
	if n == len(w.out) {
		given := shard.Changes{Events: w.out, Through: w.sabotage(w.merger.knobs.FastestThrough, w.through())}
		w.out = nil
		return given
	}
	given := shard.Changes{Events: w.out[:n:n], Through: revision(w.out[n-1])}
	w.out = w.out[n:]
	return given
}

func revision(e *mvccpb.Event) shard.Revision { return shard.Revision(e.Kv.ModRevision) }

// split gives the rest of the part's span, from key on, to a part of its own, which has
// come as far. What the part holds stays with it: its revisions order it among all.
func (w *Watch) split(p *part, key []byte) *part {
	rest := &part{watch: w, span: shard.Span{Start: key, End: p.span.End}, through: p.through}
	p.span.End = key
	at := slices.Index(w.parts, p)
	w.parts = slices.Insert(w.parts, at+1, rest)
	return rest
}

var _ router.Feed = (*Watch)(nil)
