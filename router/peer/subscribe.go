package peer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// subscribeEvents is the approximate number of events per frame.
	subscribeEvents = 256
	// throughPause is the minimum time between frames that report only progress: a busy shard's
	// floor rises with every write, watched or not.
	throughPause = 2 * time.Millisecond
)

// Publisher opens feeds on this node; exec.Executor is one.
type Publisher interface {
	Subscribe(sub router.Subscription, ready func()) (router.Feed, error)
}

// ServeSubscribe streams a feed of this node until it ends or its receiver leaves. Events are
// polled no faster than the receiver reads: the stream's flow control is the back-pressure.
func ServeSubscribe(req *routerpb.SubscribeRequest, stream grpc.ServerStreamingServer[routerpb.ChangesFrame], from Publisher, revisions Revisions) error {
	ctx := stream.Context()
	kick := make(chan struct{}, 1)
	fail := func(err error) error {
		reply := &routerpb.Reply{}
		encodeError(reply, err)
		return stream.Send(&routerpb.ChangesFrame{Error: reply, HighestRevision: int64(revisions.Seen())})
	}
	feed, err := from.Subscribe(decodeSubscription(req), func() {
		select {
		case kick <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return fail(err)
	}
	defer feed.Close()
	through := shard.Revision(-1) // so that the first frame tells that the feed is open
	for {
		changes, err := feed.Poll(subscribeEvents)
		if err != nil {
			return fail(err)
		}
		pause := time.Duration(0)
		if len(changes.Events) > 0 || changes.Through > through {
			frames, err := encodeChanges(changes)
			if err != nil {
				return fail(err)
			}
			for _, frame := range frames {
				frame.HighestRevision = int64(revisions.Seen())
				if err := stream.Send(frame); err != nil {
					return err
				}
			}
			if len(changes.Events) == 0 {
				pause = throughPause
			}
			through = changes.Through
			feed.Await(through + 1)
		}
		if err := waitFor(ctx, kick, pause); err != nil {
			return err
		}
	}
}

// waitFor returns after kick, and not before pause is over.
func waitFor(ctx context.Context, kick <-chan struct{}, pause time.Duration) error {
	if pause > 0 {
		t := time.NewTimer(pause)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-kick:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func encodeSubscription(sub router.Subscription) *routerpb.SubscribeRequest {
	return &routerpb.SubscribeRequest{
		Shard: uint64(sub.Shard), Epoch: sub.Epoch, Start: sub.Span.Start, End: sub.Span.End, From: int64(sub.From), PrevKv: sub.PrevKV,
		Relay: uint64(sub.Relay),
	}
}

func decodeSubscription(req *routerpb.SubscribeRequest) router.Subscription {
	return router.Subscription{
		Shard: shard.ID(req.Shard), Epoch: req.Epoch, Span: shard.Span{Start: req.Start, End: req.End}, From: shard.Revision(req.From), PrevKV: req.PrevKv,
		Relay: shard.NodeID(req.Relay),
	}
}

// encodeChanges makes frames of about frameBytesMax, which a receiver accepts. A revision may need
// several: it is not in a frame's through before its last event is there.
func encodeChanges(c shard.Changes) ([]*routerpb.ChangesFrame, error) {
	frame := &routerpb.ChangesFrame{}
	frames := []*routerpb.ChangesFrame{frame}
	bytes := 0
	for _, e := range c.Events {
		data, err := proto.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("encode the event of key %.64q at revision %d: %w", e.Kv.Key, e.Kv.ModRevision, err)
		}
		if bytes > 0 && bytes+len(data) > frameBytesMax {
			frame.Through = e.Kv.ModRevision - 1
			frame, bytes = &routerpb.ChangesFrame{}, 0
			frames = append(frames, frame)
		}
		frame.Events = append(frame.Events, data)
		bytes += len(data)
	}
	frame.Through = int64(c.Through)
	return frames, nil
}

func decodeChanges(frame *routerpb.ChangesFrame) (shard.Changes, error) {
	c := shard.Changes{Through: shard.Revision(frame.Through)}
	for _, data := range frame.Events {
		e := &mvccpb.Event{}
		if err := proto.Unmarshal(data, e); err != nil {
			return shard.Changes{}, fmt.Errorf("decode an event: %w", err)
		}
		c.Events = append(c.Events, e)
	}
	return c, nil
}

// Subscribe opens a feed at the node. It returns once the node has confirmed it.
func (c *Client) Subscribe(ctx context.Context, sub router.Subscription, ready func()) (router.Feed, error) {
	live, cancel := context.WithCancel(context.Background())
	defer context.AfterFunc(ctx, cancel)() // until the feed is open
	token, opening, err := tokenFor(live, c.login)
	if err != nil {
		cancel()
		return nil, err
	}
	f := &feed{revisions: c.revisions, ready: ready, cancel: cancel, room: make(chan struct{}, 1)}
	f.judge = func(err error) error {
		_, err = refused(c.login, token, err)
		return err
	}
	stream, err := c.service.Subscribe(opening, encodeSubscription(sub), grpc.ForceCodecV2(Codec()))
	var first shard.Changes
	if err == nil {
		first, err = f.receive(stream)
	} else {
		err = fmt.Errorf("watch shard %d: %w: %w", sub.Shard, shard.ErrUnavailable, err)
	}
	if err != nil {
		cancel()
		c.state.broke.Store(true)
		return nil, err
	}
	f.add(first, nil)
	go f.run(live, stream)
	return f, nil
}

// bufferedMax and bufferedBytesMax are how many events a feed receives, and how much of them, before its holder has taken
// some.
const (
	bufferedMax      = 1024
	bufferedBytesMax = 4 << 20
)

// feed is a feed from another node. One goroutine fills its buffer.
type feed struct {
	revisions Revisions
	ready     func()
	cancel    context.CancelFunc
	judge     func(error) error // of what the node says why it ends
	room      chan struct{}     // the buffer was emptied

	mu struct {
		sync.Mutex
		changes shard.Changes  // received and not taken
		bytes   int            // of its events
		told    shard.Revision // the Through that Poll has returned
		err     error          // after changes
		awaited shard.Revision
	}
}

// run receives until the stream ends.
func (f *feed) run(ctx context.Context, stream grpc.ServerStreamingClient[routerpb.ChangesFrame]) {
	defer f.cancel()
	for {
		changes, err := f.receive(stream)
		if f.add(changes, err) {
			f.ready()
		}
		if err != nil {
			return
		}
		for f.full() {
			select {
			case <-f.room:
			case <-ctx.Done(): // closed, perhaps by somebody else than who polls it
				f.add(shard.Changes{}, fmt.Errorf("stream of changes was closed: %w", shard.ErrUnavailable))
				f.ready()
				return
			}
		}
	}
}

func (f *feed) receive(stream grpc.ServerStreamingClient[routerpb.ChangesFrame]) (shard.Changes, error) {
	frame, err := stream.Recv()
	if err != nil {
		return shard.Changes{}, fmt.Errorf("stream of changes ended: %w: %w", shard.ErrUnavailable, err)
	}
	f.revisions.Observe(shard.Revision(frame.HighestRevision))
	if frame.Error != nil {
		return shard.Changes{}, f.judge(decodeError(frame.Error))
	}
	return decodeChanges(frame)
}

// add stores received changes and reports whether ready must be called.
func (f *feed) add(changes shard.Changes, err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.mu.err = err
		return true
	}
	f.mu.changes.Events = append(f.mu.changes.Events, changes.Events...)
	f.mu.bytes += shard.EventBytes(changes.Events)
	f.mu.changes.Through = changes.Through
	reached := f.mu.awaited > 0 && changes.Through >= f.mu.awaited
	if reached {
		f.mu.awaited = 0
	}
	return reached || f.whole() > 0
}

// whole is the number of buffered events that belong to completely received revisions.
func (f *feed) whole() int {
	n := len(f.mu.changes.Events)
	for n > 0 && shard.Revision(f.mu.changes.Events[n-1].Kv.ModRevision) > f.mu.changes.Through {
		n--
	}
	return n
}

func (f *feed) full() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	whole := f.whole()
	return whole >= bufferedMax || whole > 0 && f.mu.bytes >= bufferedBytesMax // a single revision may have more
}

// Poll implements router.Feed.
func (f *feed) Poll(max int) (shard.Changes, error) {
	changes, more, err := f.take(max)
	if more {
		f.ready()
	}
	return changes, err
}

func (f *feed) take(max int) (changes shard.Changes, more bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	whole := f.whole()
	if whole == 0 && f.mu.err != nil && f.mu.changes.Through <= f.mu.told {
		return shard.Changes{}, false, f.mu.err
	}
	changes = f.mu.changes
	events := changes.Events[:whole]
	n := min(max, whole)
	for n > 0 && n < whole && events[n].Kv.ModRevision == events[n-1].Kv.ModRevision {
		n++
	}
	changes.Events, f.mu.changes.Events = events[:n:n], changes.Events[n:]
	f.mu.bytes -= shard.EventBytes(changes.Events)
	if n < whole {
		changes.Through = shard.Revision(events[n-1].Kv.ModRevision)
	}
	f.mu.told = changes.Through
	if len(f.mu.changes.Events) == 0 {
		f.mu.changes.Events = nil // the holder's now
	}
	select {
	case f.room <- struct{}{}:
	default:
	}
	return changes, n < whole || f.mu.err != nil, nil
}

// Await implements router.Feed. The node reports progress without being asked.
func (f *feed) Await(rev shard.Revision) {
	f.mu.Lock()
	there := f.mu.err != nil || f.mu.changes.Through >= rev
	if !there {
		f.mu.awaited = rev
	}
	f.mu.Unlock()
	if there {
		f.ready()
	}
}

// Close implements router.Feed.
func (f *feed) Close() { f.cancel() }
