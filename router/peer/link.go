package peer

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// link is one stream during its lifetime.
type link struct {
	revisions Revisions
	cancel    context.CancelFunc
	kick      chan struct{} // there is something to send
	done      chan struct{} // closed when the stream has ended
	login     Login         // nil: the stream has no token
	token     string        // of the stream; set before anything is sent
	retired   atomic.Bool   // new requests go by another stream; this one ends when its last call has

	mu struct {
		sync.Mutex
		calls calls
		out   outbox
		age   int   // counts calls of look
		owing int   // one more than the age from which on the node has owed answers and sent none; 0 if it owes none
		pings int   // pings in flight
		ended error // why there is no stream any more
	}
	state *state // its client's. Changed with mu held, while the stream has not ended
}

func newLink(b bounds, buffers *frameBuffers, revisions Revisions, s *state, cancel context.CancelFunc) *link {
	l := &link{revisions: revisions, state: s, cancel: cancel, kick: make(chan struct{}, 1), done: make(chan struct{})}
	l.mu.out = outbox{bounds: b, buffers: buffers}
	return l
}

func (l *link) enqueue(c *call, r *request) error {
	l.mu.Lock()
	if l.mu.ended == nil && l.retired.Load() {
		// look ends a retired stream once it is idle. What joined it meanwhile would be sent, perhaps, and never answered.
		l.mu.Unlock()
		return errRetired
	}
	return l.join(c, r)
}

// join is enqueue for a caller that holds mu, which it releases. A retired stream takes pings too, which keep a node
// that answers nothing else from counting as silent.
func (l *link) join(c *call, r *request) error {
	if l.mu.ended != nil {
		defer l.mu.Unlock()
		return fmt.Errorf("no stream to the node: %w: %w", shard.ErrUnavailable, l.mu.ended)
	}
	if l.mu.out.full() || !l.mu.calls.add(c) {
		l.mu.Unlock()
		return fmt.Errorf("queue to the node is full: %w", shard.ErrOverloaded)
	}
	c.born = l.mu.age
	if l.mu.owing == 0 { // it owes an answer from now on, even if the caller gives up before that
		l.mu.owing = l.mu.age + 1
	}
	l.mu.out.add(c, r)
	l.mu.Unlock()
	select {
	case l.kick <- struct{}{}:
	default:
	}
	return nil
}

// forget removes a call whose caller has given up. It returns false if the call has been answered.
func (l *link) forget(c *call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.remove(c)
}

// remove is forget for a caller that holds mu.
func (l *link) remove(c *call) bool {
	if l.mu.calls.take(c.id) == nil {
		return false
	}
	if c.waits != nil {
		l.mu.out.drop(c)
	}
	return true
}

func (l *link) run(ctx context.Context, s service) {
	var looking sync.WaitGroup
	looking.Go(l.lookout)
	defer looking.Wait()
	defer l.cancel()
	token, ctx, err := tokenFor(ctx, l.login)
	if err != nil {
		l.refuse(err)
		return
	}
	l.token = token
	stream, err := s.Exchange(ctx, grpc.ForceCodecV2(Codec()))
	if err != nil {
		l.end(err)
		return
	}
	received := make(chan error, 1)
	go func() { received <- l.receive(stream) }()
	for {
		select {
		case <-l.kick:
			runtime.Gosched() // others woken together with this sender may add to the frame
			if err := l.flush(stream); err != nil {
				// The receiver knows why the stream broke.
				l.cancel()
				l.end(<-received)
				return
			}
		case err := <-received:
			l.end(err)
			return
		}
	}
}

// judge is the error of a reply. After a refusal of the stream's token there is another stream.
func (l *link) judge(err error) error {
	again, err := refused(l.login, l.token, err)
	if again {
		l.mu.Lock()
		l.retire()
		l.mu.Unlock()
	}
	return err
}

// retire has the stream take nothing more. The node has just answered, and there may be no successor to say so. The caller
// holds mu.
func (l *link) retire() {
	if !l.retired.Swap(true) {
		l.state.silent.Store(false)
	}
}

// end gives every call without a reply its outcome.
func (l *link) end(err error) {
	if err == nil {
		err = context.Canceled
	}
	l.settle(err, func(c *call) error { return c.outcome(fmt.Errorf("stream to the node ended: %w", err)) })
}

// refuse ends a stream that was not opened: of no call was anything sent.
func (l *link) refuse(err error) { l.settle(err, func(*call) error { return err }) }

func (l *link) settle(err error, outcome func(*call) error) {
	l.mu.Lock()
	l.mu.ended = err
	if !l.retired.Load() { // the state is its successor's
		l.state.silent.Store(false)
		l.state.broke.Store(true)
	}
	left := l.mu.calls
	l.mu.calls, l.mu.out.frames = calls{}, nil
	l.mu.Unlock()
	close(l.done) // before the outcomes are reported: whoever tries again because of one gets a new stream
	for c := range left.all() {
		c.fail(outcome(c))
	}
}

// Requests wait for their replies for about patience, whatever their callers do: a node answers
// within router.RequestTimeout. A sweep over all of them is cheaper than a timer for each.
const (
	glance   = 500 * time.Millisecond
	patience = int((router.RequestTimeout + time.Second) / glance)
	// silence is for how long a node that owes answers may give none before it counts as silent.
	silence = int(2 * time.Second / glance)
	// doubt is for how long such a node may give no answer before it is pinged. A ping shows whether the node is
	// silent or only needs long for what it owes.
	doubt = silence / 2
)

var (
	errNoAnswer = errors.New("the node did not answer in time")
	errSilent   = errors.New("the node gives no answers")
	errRetired  = fmt.Errorf("the stream to the node takes nothing more: %w", shard.ErrUnavailable)
)

// lookout calls look regularly until the stream has ended. It has a goroutine of its own because sending
// may block, above all to a node that is silent.
func (l *link) lookout() {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.look()
		case <-l.done:
			return
		}
	}
}

// look ends the calls that have waited too long, and those that need not wait for a silent node (N6).
func (l *link) look() {
	l.mu.Lock()
	l.mu.age++
	quiet := 0
	if l.mu.owing > 0 {
		quiet = l.mu.age - l.mu.owing
	}
	silent := quiet >= silence
	if l.mu.ended == nil && !l.retired.Load() {
		l.state.silent.Store(silent)
	}
	var late, elsewhere []*call
	for c := range l.mu.calls.all() {
		switch waited := l.mu.age - c.born; {
		case waited > patience:
			late = append(late, c)
		case silent && waited > 1 && c.movable():
			elsewhere = append(elsewhere, c)
		}
	}
	// All are removed under one lock, so a request that was not sent until now is never sent.
	for _, c := range late {
		l.remove(c)
	}
	for _, c := range elsewhere {
		l.remove(c)
	}
	over := l.over()
	ping := !over && quiet >= doubt && l.mu.pings == 0
	l.mu.Unlock()
	if over {
		l.cancel()
	}
	for _, c := range late {
		c.fail(c.outcome(errNoAnswer))
	}
	for _, c := range elsewhere {
		c.fail(c.outcome(errSilent))
	}
	if ping {
		l.ping()
	}
}

// over reports that the stream is retired and has no calls, which stays so: enqueue takes nothing more. The caller holds
// mu.
func (l *link) over() bool { return l.retired.Load() && l.mu.calls.none() }

// ping sends the node a request for a shard that does not exist, which any node answers at once.
func (l *link) ping() {
	c := &call{link: l, asked: &router.Request{Op: routerpb.Op_OP_PROBE, Serializable: true}, end: router.EndFunc(func(*router.Reply, error) {
		l.mu.Lock()
		l.mu.pings--
		l.mu.Unlock()
	})}
	r := request{asked: c.asked}
	if r.prepare() != nil {
		return
	}
	l.mu.Lock()
	l.mu.pings++
	if err := l.join(c, &r); err != nil {
		c.fail(err)
	}
}

// flush sends everything that waits.
func (l *link) flush(stream grpc.ClientStream) error {
	for {
		l.mu.Lock()
		f := l.mu.out.next()
		l.mu.Unlock()
		if f == nil {
			return nil
		}
		f.close(l.revisions.Seen())
		if err := stream.SendMsg(f); err != nil {
			return err
		}
	}
}

// receive passes replies to their callers until the stream ends.
func (l *link) receive(stream grpc.ClientStream) error {
	var in incoming
	var replies []answered
	var calls []*call
	for {
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		replies, calls = replies[:0], calls[:0]
		highest, err := parts(in.data, func(field protowire.Number, data []byte) error {
			if field != frameReplies {
				return nil
			}
			a, err := decodeAnswered(data)
			replies = append(replies, a)
			return err
		})
		if err != nil {
			return err
		}
		l.revisions.Observe(highest)
		l.mu.Lock()
		for i := range replies {
			if replies[i].id == noRequest {
				l.retire()
			}
			calls = append(calls, l.mu.calls.take(replies[i].id)) // nil if it was abandoned
		}
		l.mu.owing = 0
		if !l.mu.calls.none() {
			l.mu.owing = l.mu.age + 1
		}
		over := l.over()
		l.mu.Unlock()
		for i, c := range calls {
			if c != nil {
				c.succeed(&replies[i])
			}
		}
		if over { // a node that is stopping waits for it
			l.cancel()
		}
		clear(replies)
		clear(calls)
		in.free()
	}
}
