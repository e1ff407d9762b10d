package etcdapi

import (
	"math"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// holdMax is how long events above a requested progress wait for watches that have not reached
	// it (E10). A shard that cannot be reached must not stop the others.
	holdMax = 100 * time.Millisecond
	// holdPause is the wait before the next attempt.
	holdPause = time.Second
)

// progress is the state of progress requests on a stream, which are answered once for all its watches. It passes
// through these states: asked; the latest revision of all spans is being found; target is set, until every watch has
// been sent everything up to it. Requests that come together are answered together.
//
// While target is set nothing above it is sent. Otherwise a watch could be sent an event and then a progress below
// it, and its client would resume below the event.
type progress struct {
	// told is the largest revision after which a client of the stream may resume.
	told shard.Revision

	asked   bool
	finding bool
	found   chan shard.Revision
	target  shard.Revision // 0 if none
	behind  []*watch       // those that may not have been sent all up to target
	held    []*watch       // those that have more, above target
	timer   *time.Timer    // runs while target is set, and until it is tried again
}

// limit is the largest revision that may be sent now.
func (p *progress) limit() shard.Revision {
	if p.target == 0 {
		return math.MaxInt64
	}
	return p.target
}

// release releases events above the target.
func (p *progress) release() {
	p.timer.Stop()
	p.target, p.behind = 0, nil
	for _, w := range p.held {
		w.held = false
		w.ready()
	}
	p.held = nil
}

// holdBack keeps a watch that has events above the target until release.
func (ws *watchStream) holdBack(w *watch) {
	if !w.held {
		w.held = true
		ws.progress.held = append(ws.progress.held, w)
	}
}

// holdTooLong suspends the target for a while, so that events flow, or resumes it after that.
func (ws *watchStream) holdTooLong() {
	p := &ws.progress
	if p.target == 0 {
		p.asked = true
		return
	}
	p.release()
	p.timer.Reset(holdPause)
}

// tellProgress takes the next step of a requested progress.
func (ws *watchStream) tellProgress() error {
	p := &ws.progress
	if p.asked && !p.finding && p.target == 0 {
		p.asked = false
		ws.find()
	}
	for n := len(p.behind); n > 0; n = len(p.behind) {
		if w := p.behind[n-1]; !w.gone.Load() && w.sent < p.target {
			return nil
		}
		p.behind = p.behind[:n-1]
	}
	if p.target == 0 {
		return nil
	}
	rev := p.target
	p.told = rev
	p.release()
	return ws.out.SendLater(&pb.WatchResponse{Header: ws.header(int64(rev)), WatchId: noID})
}

// announced lists the watches that the client knows.
func (ws *watchStream) announced() []*watch {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var known []*watch
	for _, w := range ws.mu.watches {
		if w.announced && !w.gone.Load() {
			known = append(known, w)
		}
	}
	return known
}

// find asks for the latest revision of all watched spans: nothing that a reader of them was told
// before the request is above it.
func (ws *watchStream) find() {
	var spans []shard.Span
	for _, w := range ws.announced() {
		spans = append(spans, w.feed.Span())
	}
	if len(spans) == 0 {
		return // as in etcd: there is no watch to promise anything
	}
	ws.progress.finding = true
	ws.work.Go(func() {
		for {
			rev, err := ws.watches.Latest(ws.ctx, spans)
			if err == nil {
				ws.progress.found <- rev // one is found at a time
				return
			}
			ws.cfg.Logger.Debug("progress cannot be told yet", "error", err)
			if !ws.pause() {
				return
			}
		}
	})
}

// aim makes all watches progress to rev. It is never below what was reported: clients resume from a
// progress even if they have received more.
func (ws *watchStream) aim(rev shard.Revision) {
	p := &ws.progress
	p.finding = false
	target := max(rev, p.told)
	known := ws.announced()
	for _, w := range known {
		if w.start > target+1 {
			return // as in etcd: the watch begins in the future and is sent nothing before
		}
	}
	if len(known) == 0 {
		return
	}
	p.target, p.behind = target, known
	p.timer.Reset(holdMax)
	for _, w := range known {
		if w.sent < target {
			w.feed.Await(target)
		}
	}
}

// joined adds a watch whose creation its client was just told.
func (ws *watchStream) joined(w *watch) {
	p := &ws.progress
	if before := w.start - 1; before <= shard.Revision(ws.cluster.Revision()) {
		p.told = max(p.told, before)
	}
	switch {
	case p.target == 0 || w.gone.Load():
	case w.start > p.target+1:
		p.release()
		p.asked = true // again, because the request covers all watches
	default:
		p.behind = append(p.behind, w)
		w.feed.Await(p.target)
	}
}

// progressInterval is Config.WatchProgressInterval plus up to a tenth, so that clients that started
// together are not all notified together.
func (s *Server) progressInterval() time.Duration {
	return s.cfg.WatchProgressInterval + rand.N(s.cfg.WatchProgressInterval/10)
}

// tick sends progress to watches that want notifications and had no events since the last tick. It
// goes up to the largest revision this node has seen, so that the client of an idle span can resume
// after a compaction. An idle shard is closed to it once; if nothing is written anywhere, nothing
// is written here.
func (ws *watchStream) tick() {
	seen := shard.Revision(ws.cluster.Revision())
	for _, w := range ws.announced() {
		if w.notify && w.quiet && w.start <= seen+1 {
			w.promise = seen
			w.feed.Await(seen)
		}
		w.quiet = true
	}
}

// keepPromise sends a watch the progress that was due at the last tick, unless an event has been
// sent meanwhile.
func (ws *watchStream) keepPromise(w *watch) error {
	if w.promise == 0 || w.sent < w.promise {
		return nil
	}
	w.promise = 0
	if !w.quiet || w.gone.Load() {
		return nil
	}
	rev := min(w.sent, ws.progress.limit())
	ws.progress.told = max(ws.progress.told, rev)
	return ws.out.SendLater(&pb.WatchResponse{Header: ws.header(int64(rev)), WatchId: w.id})
}
