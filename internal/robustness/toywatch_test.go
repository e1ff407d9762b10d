package robustness_test

import (
	"cmp"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// toyChange is one event, with the previous value.
type toyChange struct {
	rev   shard.Revision
	event *mvccpb.Event
}

// logChange needs s.mu.
func (s *toyStore) logChange(rev shard.Revision, e *mvccpb.Event) {
	s.log = append(s.log, toyChange{rev, e})
	close(s.changed)
	s.changed = make(chan struct{})
}

// toyWatch is one watch of a stream.
type toyWatch struct {
	want *pb.WatchCreateRequest
	span shard.Span
	// next is the lowest revision that was not given.
	next  shard.Revision
	polls int
}

// top closes the shards of a span to the highest revision among them, and returns it.
// It needs s.mu.
func (s *toyStore) top(span shard.Span) shard.Revision {
	shards := s.overlapping(span)
	var top shard.Revision
	for _, sh := range shards {
		top = max(top, sh.rev)
	}
	if s.bug != "released before the floor" {
		for _, sh := range shards {
			sh.floor = max(sh.floor, top)
		}
	}
	return top
}

// poll returns what a watch was not given yet, and up to where that is all.
func (s *toyStore) poll(w *toyWatch) ([]*mvccpb.Event, shard.Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	top := s.top(w.span)
	var due []toyChange
	for _, c := range s.log {
		if c.rev >= w.next && c.rev <= top && w.wants(c.event) {
			due = append(due, c)
		}
	}
	slices.SortStableFunc(due, func(a, b toyChange) int { return cmp.Compare(a.rev, b.rev) })
	if len(due) > 0 {
		w.polls++
	}
	strikes := len(due) > 0 && w.polls%5 == 0
	if s.bug == "lost event" && strikes {
		due = due[1:]
	}
	w.next = max(w.next, top+1)
	if s.bug == "duplicate event" && strikes {
		w.next = top
	}
	var out []*mvccpb.Event
	for _, c := range due {
		e := &mvccpb.Event{Type: c.event.Type, Kv: c.event.Kv}
		if w.want.PrevKv && (s.bug != "no previous value" || !strikes) {
			e.PrevKv = c.event.PrevKv
		}
		out = append(out, e)
	}
	return out, top
}

func (w *toyWatch) wants(e *mvccpb.Event) bool {
	unwanted := pb.WatchCreateRequest_NODELETE
	if e.Type == mvccpb.PUT {
		unwanted = pb.WatchCreateRequest_NOPUT
	}
	return w.span.Contains(e.Kv.Key) && !slices.Contains(w.want.Filters, unwanted)
}

// Watch implements the server of etcd's watches.
func (n *toyNode) Watch(stream pb.Watch_WatchServer) error {
	requests := make(chan *pb.WatchRequest)
	go func() {
		defer close(requests)
		for {
			req, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case requests <- req:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	var watches []*toyWatch
	for {
		n.store.mu.Lock()
		changed := n.store.changed
		n.store.mu.Unlock()
		if err := n.give(stream, watches); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case req, ok := <-requests:
			if !ok {
				return nil
			}
			if create := req.GetCreateRequest(); create != nil {
				w, created := n.store.open(create)
				watches = append(watches, w)
				if err := stream.Send(created); err != nil {
					return err
				}
			} else if err := n.tellProgress(stream, watches); err != nil {
				return err
			}
		}
	}
}

func (s *toyStore) open(want *pb.WatchCreateRequest) (*toyWatch, *pb.WatchResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &toyWatch{want: want, span: shard.RequestSpan(want.Key, want.RangeEnd), next: shard.Revision(want.StartRevision)}
	top := s.top(w.span)
	if w.next == 0 {
		w.next = top + 1
	}
	if s.bug == "before the start" {
		w.next -= 1 << 20
	}
	return w, &pb.WatchResponse{WatchId: want.WatchId, Created: true, Header: &pb.ResponseHeader{Revision: int64(top)}}
}

// give sends all watches what is due.
func (n *toyNode) give(stream pb.Watch_WatchServer, watches []*toyWatch) error {
	for _, w := range watches {
		events, top := n.store.poll(w)
		n.pass()
		if len(events) == 0 {
			continue
		}
		batches := [][]*mvccpb.Event{events}
		if n.store.bug == "split revision" {
			batches = slices.Collect(slices.Chunk(events, 1))
		}
		for _, b := range batches {
			resp := &pb.WatchResponse{WatchId: w.want.WatchId, Header: &pb.ResponseHeader{Revision: int64(top)}, Events: b}
			if err := stream.Send(resp); err != nil {
				return err
			}
		}
	}
	return nil
}

// tellProgress answers a request for progress. It says nothing while a watch waits for
// the future.
func (n *toyNode) tellProgress(stream pb.Watch_WatchServer, watches []*toyWatch) error {
	s := n.store
	s.mu.Lock()
	var top shard.Revision
	for _, w := range watches {
		top = max(top, s.top(w.span))
	}
	switch s.bug {
	case "early progress":
		top = s.newest() + 1<<18
	case "short progress":
		top -= 1 << 18
	default:
		for _, w := range watches {
			for _, sh := range s.overlapping(w.span) {
				sh.floor = max(sh.floor, top)
			}
		}
	}
	s.mu.Unlock()
	for _, w := range watches {
		if w.next > top+1 && s.bug != "short progress" {
			return nil
		}
	}
	if err := n.give(stream, watches); err != nil {
		return err
	}
	return stream.Send(&pb.WatchResponse{WatchId: -1, Header: &pb.ResponseHeader{Revision: int64(top)}})
}
