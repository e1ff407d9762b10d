package etcdapi

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/router/auth"
	"github.com/flotilla-kv/flotilla/shard"
)

// Texts of refused creations for which etcd's API module has no value.
const (
	reasonEmptyRange  = "mvcc: watcher range is empty"
	reasonDuplicateID = "mvcc: duplicate watch ID provided on the WatchStream"
)

const (
	// autoID in a creation asks for an ID; noID is used in responses that concern no watch or all
	// of them.
	autoID = 0
	noID   = -1
)

// answersMax bounds the requests that a client may send on a stream without reading the responses.
const answersMax = 1024

// watchServer is etcd's Watch service.
type watchServer struct {
	pb.UnsafeWatchServer
	*Server
}

// Watch serves one stream. Three goroutines share it: one receives, one sends, and this one waits
// for the end, because the other two may be blocked by the client until the stream is aborted.
func (s *watchServer) Watch(stream pb.Watch_WatchServer) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	ws := newWatchStream(ctx, s.Server, stream)
	go func() {
		// A client that has sent its last request still wants its events.
		if err := ws.receive(); !errors.Is(err, io.EOF) {
			cancel(err)
		}
	}()
	go func() { cancel(ws.run()) }()
	if requiresLeader(ctx) {
		ws.work.Go(func() { s.awaitLoss(ctx, cancel) })
	}
	<-ctx.Done()
	ws.close()
	switch err := context.Cause(ctx); {
	case errors.Is(stream.Context().Err(), context.Canceled):
		return rpctypes.ErrGRPCWatchCanceled
	default:
		return readError(stream.Context(), err)
	}
}

// leaderChecks is how often the leader is checked within Config.LeaderTimeout.
const leaderChecks = 3

// awaitLoss ends the stream when there has been no leader for LeaderTimeout.
func (s *Server) awaitLoss(ctx context.Context, end context.CancelCauseFunc) {
	tick := time.NewTicker(s.cfg.LeaderTimeout / leaderChecks)
	defer tick.Stop()
	for missing := 0; missing < leaderChecks; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if missing++; s.cluster.HasLeader() {
			missing = 0
		}
	}
	end(rpctypes.ErrGRPCNoLeader)
}

// watchStream is one Watch RPC: its watches and what is to be sent.
//
// E9  What is sent comes in this order: created before all else of a watch, answers in
// the order of the requests, a watch's events by revision, no event after canceled.
// E10 A progress response promises, to each watch it speaks of, all up to its revision,
// and is never below what the stream has said before: clients take it as where to resume.
// E11 A client that does not read costs its stream only: nothing is polled for it, and
// memory is bounded.
type watchStream struct {
	*Server
	ctx  context.Context
	grpc pb.Watch_WatchServer
	out  sender
	kick chan struct{} // there is something to do for run
	room chan struct{} // a token for each answer that waits
	work sync.WaitGroup

	progress progress      // run's
	turn     []*watch      // run's: those it serves now
	response watchResponse // run's: the response it is sending

	// polling is held while a watch is polled. Once close has held it no watch is polled any more,
	// although run may still be blocked in sending.
	polling sync.Mutex

	caller *auth.Caller

	mu struct {
		sync.Mutex
		closed  bool
		watches map[int64]*watch
		nextID  int64
		answers []*answer // in the order of the requests
		spare   *answer   // an answer that was sent, for reuse; nil if none
		ready   []*watch  // watches that may have something to send; each is in it once
	}
}

// answer is the response to a request, once it is complete. It is created, or resp, or a progress,
// which is sent later.
type answer struct {
	created  *watch
	span     shard.Span // of created, until it has a feed
	prevKV   bool       // likewise
	revision int64      // of created's header
	resp     *pb.WatchResponse
	progress bool
	done     bool // guarded by watchStream.mu
}

// watch is one watch of a stream. There may be thousands, and most are idle, so it is small.
type watch struct {
	stream *watchStream
	id     int64
	start  shard.Revision // set before the watch is announced
	feed   Watch          // likewise

	noPut    bool
	noDelete bool
	fragment bool
	notify   bool

	announced bool        // guarded by watchStream.mu: created has been sent
	queued    bool        // guarded by watchStream.mu: in ready
	gone      atomic.Bool // canceled, or ended by itself

	// The following fields belong to run.

	held    bool           // backlog waits for a requested progress
	quiet   bool           // no events since the last tick of progress
	sent    shard.Revision // all up to it has been sent; below start-1: nothing yet
	promise shard.Revision // progress is to be told once sent has reached it; 0: none
	backlog *shard.Changes // polled and not sent; nil: nothing
}

func newWatchStream(ctx context.Context, s *Server, stream pb.Watch_WatchServer) *watchStream {
	ws := &watchStream{Server: s, ctx: ctx, grpc: stream, caller: s.cfg.Auth.Of(ctx), out: senderOf(stream), kick: make(chan struct{}, 1), room: make(chan struct{}, answersMax)}
	ws.progress.found = make(chan shard.Revision, 1)
	ws.mu.watches = make(map[int64]*watch)
	s.watching.streams.Inc()
	return ws
}

// close ends all watches and waits for the goroutines that work for them.
func (ws *watchStream) close() {
	ws.polling.Lock() // and never unlocked: nothing is polled any more
	ws.mu.Lock()
	ws.mu.closed = true
	watches := ws.mu.watches
	ws.mu.watches = nil
	ws.mu.Unlock()
	for _, w := range watches {
		ws.end(w)
	}
	ws.work.Wait()
	ws.watching.streams.Dec()
}

// wake makes run look for work.
func (ws *watchStream) wake() {
	select {
	case ws.kick <- struct{}{}:
	default:
	}
}

// receive accepts requests until the stream ends.
func (ws *watchStream) receive() error {
	var req watchRequest
	for {
		if err := ws.grpc.RecvMsg(&req); err != nil {
			return err
		}
		if req.kind == requestUnknown {
			continue // as etcd: it may be from a newer client
		}
		select {
		case ws.room <- struct{}{}:
		case <-ws.ctx.Done():
			return ws.ctx.Err()
		}
		var a *answer
		switch req.kind {
		case requestCreate:
			a = ws.create(&req.create)
		case requestCancel:
			a = ws.cancel(req.cancel.WatchId)
		case requestProgress:
			a = ws.answered(&answer{progress: true, done: true})
		}
		if a == nil {
			<-ws.room
		}
	}
}

// create registers a watch, or refuses it, and returns the answer that will report this. Of the
// request it keeps Key and RangeEnd.
func (ws *watchStream) create(req *pb.WatchCreateRequest) *answer {
	if len(req.Key) == 0 {
		req.Key = []byte{0} // the smallest
	}
	w := &watch{
		stream: ws, id: req.WatchId, start: shard.Revision(req.StartRevision),
		fragment: req.Fragment, notify: req.ProgressNotify, quiet: true,
	}
	for _, f := range req.Filters {
		w.noPut = w.noPut || f == pb.WatchCreateRequest_NOPUT
		w.noDelete = w.noDelete || f == pb.WatchCreateRequest_NODELETE
	}
	ws.mu.Lock()
	a := ws.mu.spare
	if ws.mu.spare = nil; a == nil {
		a = new(answer)
	}
	*a = answer{created: w, span: shard.RequestSpan(req.Key, req.RangeEnd), prevKV: req.PrevKv}
	ws.mu.answers = append(ws.mu.answers, a)
	reason := ""
	if w.start >= 0 {
		reason = ws.forbidden(req)
	}
	if reason == "" {
		reason = ws.admitWatch(a)
	}
	known := w.start > 0
	if reason != "" {
		a.created, a.done = nil, true
		a.resp = &pb.WatchResponse{Header: ws.header(ws.cluster.Revision()), WatchId: noID, Created: true, Canceled: true, CancelReason: reason}
	}
	ws.mu.Unlock()
	switch {
	case reason != "":
		ws.wake()
	case known:
		ws.begin(a, ws.cluster.Revision())
	default:
		ws.beginLatest(a)
	}
	return a
}

// forbidden returns the reason, as etcd gives it, why the caller may not have a watch. As in etcd, one that was begun
// goes on when the permission ends.
func (ws *watchStream) forbidden(req *pb.WatchCreateRequest) string {
	if ws.cfg.Auth.Open() {
		return ""
	}
	err := ws.caller.Read(req.Key, req.RangeEnd)
	if err == nil {
		return ""
	}
	return err.Error()
}

// admitWatch gives a new watch its ID and a place on the stream. It returns the reason not
// to.
func (ws *watchStream) admitWatch(a *answer) string {
	w := a.created
	switch {
	case w.start < 0:
		return rpctypes.ErrorDesc(rpctypes.ErrGRPCCompacted)
	case a.span.Empty(), ws.mu.closed:
		return reasonEmptyRange
	case w.id == autoID:
		for ws.mu.watches[ws.mu.nextID] != nil {
			ws.mu.nextID++
		}
		w.id = ws.mu.nextID
		ws.mu.nextID++
	case ws.mu.watches[w.id] != nil:
		return reasonDuplicateID
	}
	ws.mu.watches[w.id] = w
	ws.watching.watches.Inc()
	return ""
}

// beginLatest begins a watch from now on: after the largest revision that its span has at the
// moment, which the answer reports. A client that loses the stream before the first event can
// continue from there.
func (ws *watchStream) beginLatest(a *answer) {
	if !ws.watches.SettleHere(a.span, a) {
		ws.settle(a)
	}
}

// Settled implements Settled. It may be called when the stream has ended and nobody waits for it.
func (a *answer) Settled(latest shard.Revision, err error) {
	ws := a.created.stream
	if err != nil {
		ws.settle(a)
		return
	}
	ws.beginAfter(a, latest)
}

// settle is beginLatest where that has to block: a goroutine retries until the stream ends.
func (ws *watchStream) settle(a *answer) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.mu.closed {
		return
	}
	ws.work.Go(func() { // before close waits
		for {
			latest, err := ws.watches.Settle(ws.ctx, a.span)
			if err == nil {
				ws.beginAfter(a, latest)
				return
			}
			ws.cfg.Logger.Debug("watch cannot begin yet", "span", a.span, "error", err)
			if !ws.pause() {
				return
			}
		}
	})
}

func (ws *watchStream) beginAfter(a *answer, latest shard.Revision) {
	a.created.start = latest + 1
	ws.begin(a, int64(latest))
}

// pause waits before a retry; it returns false when the stream ends.
func (ws *watchStream) pause() bool {
	t := time.NewTimer(100 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ws.ctx.Done():
		return false
	}
}

// begin opens the watch, whose start is known, and completes the answer.
func (ws *watchStream) begin(a *answer, revision int64) {
	w := a.created
	feed := ws.watches.Watch(a.span, w.start, a.prevKV, w.ready)
	ws.mu.Lock()
	w.feed = feed
	a.revision, a.done = revision, true
	gone := w.gone.Load()
	ws.mu.Unlock()
	if gone { // canceled meanwhile
		feed.Close()
	}
	ws.wake()
}

// cancel ends a watch. As in etcd, an unknown ID gets no answer.
func (ws *watchStream) cancel(id int64) *answer {
	ws.mu.Lock()
	w := ws.mu.watches[id]
	delete(ws.mu.watches, id)
	ws.mu.Unlock()
	if w == nil {
		return nil
	}
	ws.end(w)
	return ws.answered(&answer{
		resp: &pb.WatchResponse{Header: ws.header(ws.cluster.Revision()), WatchId: id, Canceled: true}, done: true,
	})
}

// answered queues an answer behind those of earlier requests.
func (ws *watchStream) answered(a *answer) *answer {
	ws.mu.Lock()
	ws.mu.answers = append(ws.mu.answers, a)
	ws.mu.Unlock()
	ws.wake()
	return a
}

// end releases what the watch holds, and reports whether nobody else has done so.
func (ws *watchStream) end(w *watch) bool {
	ws.mu.Lock()
	first, feed := !w.gone.Swap(true), w.feed
	ws.mu.Unlock()
	if !first {
		return false
	}
	ws.watching.watches.Dec()
	if feed != nil {
		feed.Close()
	}
	return true
}

// ready is called by the watch's feed. It queues the watch behind the others that are ready.
func (w *watch) ready() {
	ws := w.stream
	ws.mu.Lock()
	first := false
	if w.announced && !w.queued && !w.gone.Load() {
		w.queued = true
		ws.mu.ready = append(ws.mu.ready, w)
		first = len(ws.mu.ready) == 1 // otherwise run was woken already, or is still running
	}
	ws.mu.Unlock()
	if first {
		ws.wake()
	}
}
