package robustness

import (
	"context"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/internal/history"
)

// stream is one gRPC stream of watches. It records exactly what the server has sent, without a library that would
// repair or hide anything.
type stream struct {
	cancel context.CancelFunc
	grpc   pb.Watch_WatchClient
	// received is closed when nothing more will be recorded.
	received chan struct{}
	// stall, if set, is called before every receive, to read slowly.
	stall func()

	mu      sync.Mutex
	watches map[int64]*following
	// asking says that progress was requested and not answered yet.
	asking bool
}

// following is one watch of a stream, and how far it has come.
type following struct {
	want  history.Watch
	rec   *history.Watching
	begun bool
	// next is the lowest revision that was not received yet.
	next int64
	// canceled: the server has ended the watch.
	canceled bool
}

// openStream opens a stream and requests all watches on it.
func openStream(ctx context.Context, conn *grpc.ClientConn, rec *history.Recorder, wants []history.Watch, stall func()) (*stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	client, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open a stream of watches: %w", err)
	}
	s := &stream{cancel: cancel, grpc: client, received: make(chan struct{}), stall: stall, watches: make(map[int64]*following)}
	for i, want := range wants {
		f := &following{want: want, rec: rec.Watch(want), next: want.From}
		s.watches[int64(i+1)] = f
	}
	go s.receive()
	for id, f := range s.watches {
		if err := client.Send(createRequest(id, f.want)); err != nil {
			s.close()
			return nil, fmt.Errorf("ask for a watch: %w", err)
		}
	}
	return s, nil
}

func createRequest(id int64, w history.Watch) *pb.WatchRequest {
	req := &pb.WatchCreateRequest{
		WatchId: id, Key: []byte(w.Of.Key), StartRevision: w.From,
		PrevKv: w.PrevKV, ProgressNotify: true, Fragment: true,
	}
	if w.Of.End != "" {
		req.RangeEnd = []byte(w.Of.End)
	}
	if w.NoPut {
		req.Filters = append(req.Filters, pb.WatchCreateRequest_NOPUT)
	}
	if w.NoDelete {
		req.Filters = append(req.Filters, pb.WatchCreateRequest_NODELETE)
	}
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}}
}

// receive records until the stream ends.
func (s *stream) receive() {
	defer close(s.received)
	for {
		if s.stall != nil {
			s.stall()
		}
		resp, err := s.grpc.Recv()
		if err != nil {
			s.end(err)
			return
		}
		s.take(resp)
	}
}

func (s *stream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.watches {
		f.rec.End(err.Error())
	}
}

func (s *stream) take(resp *pb.WatchResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := seenResponse(resp)
	if resp.WatchId == streamWatchID {
		seen.Requested, s.asking = true, false
		for _, f := range s.watches {
			f.take(seen)
		}
		return
	}
	if f := s.watches[resp.WatchId]; f != nil {
		f.take(seen)
	}
}

// streamWatchID is the ID by which etcd addresses all watches of a stream at once.
const streamWatchID = -1

func (f *following) take(seen history.WatchResponse) {
	f.rec.Response(seen)
	switch {
	case seen.Created:
		f.begun = true
		f.next = max(f.next, 1)
		if f.want.From == 0 {
			f.next = seen.Revision + 1
		}
	case seen.Canceled:
		f.canceled = true
	case len(seen.Events) == 0:
		f.next = max(f.next, seen.Revision+1)
	case seen.Fragment:
		f.next = max(f.next, seen.Events[len(seen.Events)-1].KV.Mod)
	default:
		f.next = max(f.next, seen.Events[len(seen.Events)-1].KV.Mod+1)
	}
}

// ask requests progress, unless the last request was not answered yet.
func (s *stream) ask() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asking {
		return
	}
	s.asking = true
	s.request()
}

// request requires that s.mu is held.
func (s *stream) request() {
	for _, f := range s.watches {
		f.rec.Ask()
	}
	// If the stream has broken, its receiver gets the error.
	_ = s.grpc.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

// reached reports whether every watch has received everything up to rev.
func (s *stream) reached(rev int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.watches {
		if !f.begun || f.next <= rev {
			return false
		}
	}
	return true
}

// close ends the stream from the client's side and waits for the receiver.
func (s *stream) close() {
	s.cancel()
	<-s.received
}

// resumed returns watches that continue where those of a closed stream have stopped, except those that the server has
// ended.
func (s *stream) resumed() []history.Watch {
	var out []history.Watch
	for id := range int64(len(s.watches)) {
		if f := s.watches[id+1]; f.begun && !f.canceled {
			next := f.want
			next.From = f.next
			out = append(out, next)
		}
	}
	return out
}

// linger waits, and reports whether the stream is still open and useful.
func (s *stream) linger(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.received:
	case <-ctx.Done():
	}
	return false
}

func seenResponse(resp *pb.WatchResponse) history.WatchResponse {
	out := history.WatchResponse{
		Revision: resp.Header.GetRevision(), Created: resp.Created, Canceled: resp.Canceled,
		Compacted: resp.CompactRevision, Fragment: resp.Fragment,
	}
	for _, e := range resp.Events {
		out.Events = append(out.Events, seenEvent(e))
	}
	return out
}

func seenEvent(e *mvccpb.Event) history.Event {
	out := history.Event{Put: e.Type == mvccpb.PUT, KV: seenKV(e.Kv)}
	if e.PrevKv != nil {
		out.Prev = seenKV(e.PrevKv)
	}
	return out
}
