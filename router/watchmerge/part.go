package watchmerge

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// heldMax and heldBytesMax are how many events of a part may wait for other parts. Beyond it the part is
// not polled: history keeps its events. Their number alone is no bound, as a value may be of any size.
const (
	heldMax      = 1024
	heldBytesMax = 4 << 20
)

// part is a piece of a watch's span that one feed serves. Everything but the atomics is guarded by
// Watch.mu.
type part struct {
	watch *Watch
	span  shard.Span

	feed    router.Feed   // nil while being opened
	source  router.Source // where the feed comes from
	through shard.Revision
	held    []*mvccpb.Event
	bytes   int            // of what is held; 0 while there is one part, which holds nothing
	awaited shard.Revision // what the feed was asked to say
	closing shard.Revision // what the shard was asked to close to
	// attempt counts feeds that ended before they had anything new: replicas are tried in turn,
	// with growing pauses.
	attempt int

	// signalled says that the feed has called ready since it was last polled.
	signalled atomic.Bool
	// waited says that the watch's next Poll waits for the part (Watch.behind).
	waited atomic.Bool
}

// signal is the ready function of the part's feed.
func (p *part) signal() {
	w := p.watch
	p.signalled.Store(true)
	if p.waited.Swap(false) {
		if w.behind.Add(-1) > 0 {
			return
		}
	} else if w.behind.Load() > 0 {
		return
	}
	w.ready()
}

// full reports whether the part holds as much as it may (W7).
func (p *part) full() bool { return len(p.held) >= heldMax || p.bytes >= heldBytesMax }

// more reports whether a Poll could make progress.
func (p *part) more() bool {
	return p.feed != nil && !p.full() && p.signalled.Load()
}

// poll takes what the feed has. It returns an error that ends the watch.
func (p *part) poll(max int) error {
	if !p.more() {
		return nil
	}
	p.signalled.Store(false)
	got, err := p.feed.Poll(max)
	if err != nil {
		return p.lost(err)
	}
	if p.watch.merging != nil {
		p.bytes += shard.EventBytes(got.Events)
	}
	if len(p.held) == 0 {
		p.held = got.Events
	} else {
		p.held = append(p.held, got.Events...)
	}
	if got.Through > p.through { // otherwise this replica is behind the previous one
		p.through, p.attempt = got.Through, 0
	}
	return nil
}

// hurry makes the part progress to target, if it lags and has nothing to deliver that would get it
// there.
func (p *part) hurry(target shard.Revision) {
	if p.through >= target || p.feed == nil || p.signalled.Load() {
		return
	}
	if p.awaited < target {
		p.awaited = target
		p.feed.Await(target)
	}
	if p.closing < target {
		p.closing = target
		p.watch.merger.closeFor(p, target)
	}
}

// closeFailed lets Poll request a close again.
func (p *part) closeFailed() {
	p.watch.mu.Lock()
	p.closing = 0
	p.watch.mu.Unlock()
	p.watch.ready()
}

// drop closes the feed.
func (p *part) drop() {
	if p.feed != nil {
		p.feed.Close()
		p.feed = nil
	}
	p.awaited, p.closing = 0, 0
}

// lost continues elsewhere after the feed ended with err, or returns why it cannot.
func (p *part) lost(err error) error {
	if final(err) {
		return fmt.Errorf("watch %s: %w", p.span, err)
	}
	p.watch.merger.router.Lost(p.source, err)
	p.drop()
	p.reopen()
	return nil
}

// final reports whether no other replica could continue after err: they all have the same history, and their nodes know
// the same users.
func final(err error) bool {
	if errors.Is(err, shard.ErrCompacted) {
		return true
	}
	var refusal interface{ GRPCStatus() *status.Status }
	if errors.Is(err, shard.ErrUnavailable) || !errors.As(err, &refusal) {
		return false
	}
	switch refusal.GRPCStatus().Code() {
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument:
		return true
	}
	return false
}

// openHere opens the feed of a new watch at once, if this node can serve all of it without
// blocking: most watches are such, and there may be thousands. It reports whether it did. Nobody
// else knows the watch yet.
func (p *part) openHere() bool {
	w := p.watch
	if w.merger.ctx.Err() != nil {
		return false
	}
	feed, source, ok := w.merger.router.SubscribeHere(router.Subscription{Span: p.span, From: w.from, PrevKV: w.prevKV}, p.signal)
	if !ok {
		return false
	}
	p.feed, p.source, p.attempt = feed, source, 1
	p.signal()
	return true
}

// reopen finds a feed for the part, in the background.
func (p *part) reopen() {
	attempt := p.attempt
	if !p.watch.merger.spawn(func() {
		for router.Pause(p.watch.merger.ctx, attempt) && !p.open(attempt) {
			attempt++
		}
		p.watch.ready() // there is a feed, or an end to tell
	}) {
		p.watch.ready() // the Merger is closed
	}
}

// open finds a feed for the part and reports whether it is done. If several shards own the part's
// span, the first keeps it and the rest becomes a part of its own.
func (p *part) open(attempt int) bool {
	w, r := p.watch, p.watch.merger.router
	place, err := r.Locate(w.merger.ctx, p.span.Start) // Start never changes
	w.mu.Lock()
	if w.err != nil || err != nil {
		defer w.mu.Unlock()
		return w.err != nil
	}
	if end := place.Span.End; len(end) > 0 && (len(p.span.End) == 0 || bytes.Compare(end, p.span.End) < 0) {
		w.split(p, end).reopen()
	}
	sub := router.Subscription{Span: p.span, From: max(w.from, p.through+1), PrevKV: w.prevKV}
	if p.through > 0 {
		sub.From += w.merger.knobs.Reopen
	}
	w.mu.Unlock()

	feed, source, err := r.Subscribe(w.merger.ctx, place, attempt, sub, p.signal)
	if err != nil {
		r.Lost(source, err)
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil && w.err != nil:
		feed.Close()
	case err == nil:
		p.feed, p.source = feed, source
		p.attempt = attempt + 1 // until it has given something
		p.signalled.Store(true)
	case final(err):
		w.end(fmt.Errorf("watch %s: %w", p.span, err))
	}
	return err == nil || w.err != nil
}
