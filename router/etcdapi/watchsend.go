package etcdapi

import (
	"errors"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// turnMax is how many watches are served before answers, progress and other work get their
	// turn.
	turnMax = 64
	// pollEvents is the approximate number of events taken from a watch in its turn.
	pollEvents = 256
	// responseBytes is the approximate size of a response, if revisions are small: gRPC clients
	// accept 4 MiB by default.
	responseBytes = 1 << 20
)

// run sends until the stream ends.
func (ws *watchStream) run() error {
	ticker := time.NewTicker(ws.progressInterval())
	defer ticker.Stop()
	timer := time.NewTimer(holdMax)
	defer timer.Stop()
	timer.Stop()
	ws.progress.timer = timer
	idle := make(chan struct{}) // never closed: to wait
	busy := make(chan struct{}) // closed: to look and go on
	close(busy)
	for next := busy; ws.ctx.Err() == nil; {
		select {
		case <-ticker.C:
			ws.tick()
		case <-timer.C:
			ws.holdTooLong()
		case rev := <-ws.progress.found:
			ws.aim(rev)
		case <-ws.kick:
		case <-ws.ctx.Done():
		case <-next:
		}
		next = idle
		worked, err := ws.step()
		if err != nil {
			return err
		}
		if worked {
			next = busy
		}
	}
	return nil
}

// step does one piece of work and reports whether there was any: an answer first, then the watches
// in turn.
func (ws *watchStream) step() (worked bool, err error) {
	ws.mu.Lock()
	a := ws.nextAnswer()
	if a == nil {
		ws.nextReady()
	}
	ws.mu.Unlock()
	if a != nil {
		err = ws.reply(a)
	}
	for i := 0; i < len(ws.turn) && err == nil; i++ {
		err = ws.serve(ws.turn[i])
	}
	worked = a != nil || len(ws.turn) > 0
	clear(ws.turn)
	ws.turn = ws.turn[:0]
	if err != nil {
		return false, err
	}
	err = ws.tellProgress()
	ws.out.Flush()
	return worked, err
}

// nextReady takes the watches that have waited longest into turn.
func (ws *watchStream) nextReady() {
	n := min(len(ws.mu.ready), turnMax)
	ws.turn = append(ws.turn, ws.mu.ready[:n]...)
	ws.mu.ready = slices.Delete(ws.mu.ready, 0, n)
	for _, w := range ws.turn {
		w.queued = false
	}
}

// nextAnswer takes the oldest answer, if it is complete.
func (ws *watchStream) nextAnswer() *answer {
	if len(ws.mu.answers) == 0 || !ws.mu.answers[0].done {
		return nil
	}
	a := ws.mu.answers[0]
	ws.mu.answers[0] = nil
	ws.mu.answers = ws.mu.answers[1:]
	<-ws.room
	return a
}

// reply sends an answer; from then on its watch is served.
func (ws *watchStream) reply(a *answer) error {
	if a.progress {
		ws.progress.asked = true
		return nil
	}
	w := a.created
	if w == nil {
		return ws.out.SendLater(a.resp)
	}
	if err := ws.send(w, a.revision, true, nil); err != nil {
		return err
	}
	ws.mu.Lock()
	w.announced = true
	*a = answer{} // whoever began the watch is done with it
	ws.mu.spare = a
	ws.mu.Unlock()
	ws.joined(w)
	w.ready()
	return nil
}

// serve sends what the watch has, up to a bound, and queues it again behind the others if there may
// be more.
func (ws *watchStream) serve(w *watch) error {
	got, err := ws.next(w)
	if err != nil {
		return ws.ended(w, err)
	}
	events := ws.take(w, got.Events)
	rest := got.Events[len(events):]
	switch {
	case len(rest) == 0 || w.gone.Load():
		w.sent = max(w.sent, got.Through)
		if w.backlog != nil {
			w.backlog = nil
			w.ready() // the feed may have called meanwhile, which brought the backlog's turn and no poll
		}
	default:
		w.backlog = &shard.Changes{Events: rest, Through: got.Through}
		w.sent = max(w.sent, shard.Revision(rest[0].Kv.ModRevision-1))
		if len(events) > 0 {
			w.ready() // for the rest, behind the others
		} else {
			ws.holdBack(w)
		}
	}
	if events = w.filter(events); len(events) > 0 {
		if err := ws.sendEvents(w, events); err != nil {
			return err
		}
	}
	return ws.keepPromise(w)
}

// next returns what was left over, or otherwise what the watch has.
func (ws *watchStream) next(w *watch) (shard.Changes, error) {
	if w.backlog != nil {
		return *w.backlog, nil
	}
	return ws.poll(w)
}

// poll polls the watch, unless it is gone or the stream is being closed.
func (ws *watchStream) poll(w *watch) (shard.Changes, error) {
	if !ws.polling.TryLock() {
		return shard.Changes{}, shard.ErrStopped // close waits for nothing else
	}
	defer ws.polling.Unlock()
	if w.gone.Load() {
		return shard.Changes{}, nil
	}
	return w.feed.Poll(pollEvents)
}

// take returns the first of the events, as many as fit the next response: whole revisions.
func (ws *watchStream) take(w *watch, events []*mvccpb.Event) []*mvccpb.Event {
	if w.gone.Load() {
		return nil
	}
	limit := ws.progress.limit()
	n, bytes := 0, 0
	for n < len(events) && shard.Revision(events[n].Kv.ModRevision) <= limit && (n == 0 || bytes < responseBytes) {
		for rev := events[n].Kv.ModRevision; n < len(events) && events[n].Kv.ModRevision == rev; n++ {
			bytes += len(events[n].Kv.Key) + len(events[n].Kv.Value)
			if prev := events[n].PrevKv; prev != nil {
				bytes += len(prev.Key) + len(prev.Value)
			}
		}
	}
	return events[:n:n]
}

// filter removes what the client does not want. Events are shared, so it copies.
func (w *watch) filter(events []*mvccpb.Event) []*mvccpb.Event {
	if !w.noPut && !w.noDelete {
		return events
	}
	var kept []*mvccpb.Event
	for _, e := range events {
		if (e.Type == mvccpb.Event_PUT && !w.noPut) || (e.Type == mvccpb.Event_DELETE && !w.noDelete) {
			kept = append(kept, e)
		}
	}
	return kept
}

func (ws *watchStream) sendEvents(w *watch, events []*mvccpb.Event) error {
	w.quiet = false
	ws.progress.told = max(ws.progress.told, shard.Revision(events[len(events)-1].Kv.ModRevision))
	ws.watching.events.Add(float64(len(events)))
	if !w.fragment {
		return ws.send(w, int64(w.sent), false, ws.encoder.encode(events))
	}
	resp := &pb.WatchResponse{Header: ws.header(int64(w.sent)), WatchId: w.id, Events: events}
	for _, part := range fragments(resp, ws.cfg.MaxRequestBytes+messageOverheadBytes) {
		if err := ws.out.SendLater(part); err != nil {
			return err
		}
	}
	return nil
}

// send sends a message that marshals itself: that the watch was created, or events from
// encodeEvents.
func (ws *watchStream) send(w *watch, revision int64, created bool, events mem.Buffer) error {
	ws.response = watchResponse{
		cluster: ws.cluster.ClusterID(), member: ws.cluster.MemberID(), term: ws.cluster.RaftTerm(), revision: revision,
		id: w.id, created: created, events: events,
	}
	err := ws.out.SendLater(&ws.response)
	ws.response.events = nil // may be large
	return err
}

// fragments divides a response that is not smaller than limit into smaller ones, as far as single
// events allow. All but the last are marked as fragments.
func fragments(resp *pb.WatchResponse, limit int) []*pb.WatchResponse {
	if proto.Size(resp) < limit {
		return []*pb.WatchResponse{resp}
	}
	var parts []*pb.WatchResponse
	rest := resp.Events
	for len(rest) > 0 {
		part := &pb.WatchResponse{Header: resp.Header, WatchId: resp.WatchId, Fragment: true, Events: rest[:1]}
		size := proto.Size(part)
		for len(part.Events) < len(rest) {
			// An event's own bytes, its length and its tag.
			size += proto.Size(rest[len(part.Events)]) + 6
			if size >= limit {
				break
			}
			part.Events = rest[:len(part.Events)+1]
		}
		rest = rest[len(part.Events):]
		parts = append(parts, part)
	}
	parts[len(parts)-1].Fragment = false
	return parts
}

// ended tells the client that a watch is over because its history is gone. Any other error ends the
// stream: its client opens another, here or elsewhere.
func (ws *watchStream) ended(w *watch, err error) error {
	var compacted *shard.CompactedError
	if !errors.As(err, &compacted) {
		return err
	}
	if !ws.end(w) {
		return nil // canceled meanwhile
	}
	// As in etcd its ID stays in use, and canceling it is answered.
	return ws.out.SendLater(&pb.WatchResponse{
		Header: ws.header(0), WatchId: w.id, Canceled: true, CompactRevision: int64(compacted.Compacted),
	})
}
