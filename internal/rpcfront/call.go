package rpcfront

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// call is a unary call, or the part of a Stream that is like one, and the context of its handler.
type call struct {
	context.Context // has the values; all else is below
	conn            *conn
	id              uint32 // the stream's number
	method          *method
	md              metadata.MD   // shared with others
	fields          []headerField // until the call is sure to be answered here
	deadline        time.Time     // zero: none
	request         *[]byte       // a message without its prefix, from Server.requests; nil: not here yet
	stream          *Stream       // nil: a unary call

	over struct { // the context's end
		sync.Mutex
		err   error
		done  chan struct{} // nil: nobody has asked for it
		after []*func()
		// started is abandoned when the call ends; nil: nothing was started, or it is answered.
		started Started
	}

	// Guarded by conn.mu once the call has begun, before that by the reader.
	window   int64       // what the client takes on this stream
	rest     *mem.Reader // of what is being sent; nil: all was, or there is none yet
	parked   bool        // rest waits for the stream's window
	tail     string      // the headers that end the stream, once they are known
	answered bool        // by the handler
	gone     bool        // no longer a stream of the connection
}

// Run handles the call and sends the response. It implements workers.Job.
func (k *call) Run() {
	resp, err := k.method.unary(k.method.impl, k, k.decode, k.conn.server.cfg.Interceptor)
	k.respond(resp, err)
	k.conn.flushSoon()
}

// Header implements Call.
func (k *call) Header(name string) []string { return k.md[name] }

// start starts the call, to be answered later, and reports whether it did.
func (k *call) start() bool {
	s := k.conn.server
	s.started.Add(1)
	started, ok := k.method.starter(k, *k.request)
	if !ok {
		s.started.Done()
		return false
	}
	s.requests.put(k.request)
	k.request = nil
	if started == nil {
		return true
	}
	k.over.Lock()
	err := k.over.err
	if err == nil {
		k.over.started = started
	}
	k.over.Unlock()
	if err != nil {
		started.Abandon(err)
	}
	return true
}

// Answer implements Call.
func (k *call) Answer(resp any, err error) { k.AnswerWithin(0, resp, err) }

// AnswerWithin implements Call. It leaves the work to the writer, because the caller may have
// responses for thousands of calls.
func (k *call) AnswerWithin(distance time.Duration, resp any, err error) {
	k.over.Lock()
	k.over.started = nil
	k.over.Unlock()
	c := k.conn
	c.mu.Lock()
	c.ready = append(c.ready, ready{call: k, resp: resp, err: err})
	switch {
	case distance == 0:
		c.kickHeld()
	case !c.awaits && !c.out.writing && !c.closed: // who writes now looks again
		c.awaits = true
		c.server.moments.add(c, distance)
	}
	c.mu.Unlock()
	c.server.started.Done()
}

// ready is a response that is not encoded yet.
type ready struct {
	call *call
	resp any
	err  error
	done bool // it was added to what goes to the client
}

// respond queues the response for the client, and ends the call.
func (k *call) respond(resp any, err error) {
	c := k.conn
	done := false
	if m := c.server.appender(resp, err); m != nil {
		c.mu.Lock()
		done = c.append(k, m)
		c.mu.Unlock()
	}
	if !done {
		k.send(resp, err)
	}
	k.finish(context.Canceled) // F5
}

// send queues a response that may have to wait for room, or that is an error.
func (k *call) send(resp any, err error) {
	var msg mem.BufferSlice
	if err == nil {
		msg, err = encode(k.conn.server, resp)
	}
	if err == nil {
		k.conn.answer(k, msg)
		msg.Free()
	} else {
		k.conn.refuse(k, err)
	}
}

// appender returns nil for a response that the codec must marshal, or an error.
func (s *Server) appender(resp any, err error) Appender {
	if err != nil || s.cfg.Appender == nil {
		return nil
	}
	return s.cfg.Appender(resp)
}

// decode unmarshals the request. Errors are grpc-go's, here and in encode.
func (k *call) decode(req any) error {
	s := k.conn.server
	err := s.cfg.Codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(*k.request)}, req)
	s.requests.put(k.request)
	k.request = nil
	if err != nil {
		return status.Errorf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err)
	}
	return nil
}

func encode(s *Server, resp any) (mem.BufferSlice, error) {
	msg, err := s.cfg.Codec.Marshal(resp)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "grpc: error while marshaling: %v", err)
	}
	if n := msg.Len(); n > math.MaxInt32 {
		msg.Free()
		return nil, status.Errorf(codes.ResourceExhausted, "grpc: trying to send message larger than max (%d vs. %d)", n, math.MaxInt32)
	}
	return msg, nil
}

// finish ends the context, the first time it is called.
func (k *call) finish(err error) {
	if started := k.end(err); started != nil {
		started.Abandon(err)
	}
}

// end is finish except for what was started, which it returns.
func (k *call) end(err error) Started {
	k.over.Lock()
	defer k.over.Unlock()
	if k.over.err != nil {
		return nil
	}
	k.over.err = err
	if k.over.done != nil {
		close(k.over.done)
	}
	for _, f := range k.over.after {
		go (*f)()
	}
	k.over.after = nil
	return k.over.started
}

// Deadline implements context.Context.
func (k *call) Deadline() (time.Time, bool) { return k.deadline, !k.deadline.IsZero() }

// Done implements context.Context.
func (k *call) Done() <-chan struct{} {
	k.over.Lock()
	defer k.over.Unlock()
	if k.over.done == nil {
		k.over.done = make(chan struct{})
		if k.over.err != nil {
			close(k.over.done)
		}
	}
	return k.over.done
}

// Err implements context.Context.
func (k *call) Err() error {
	k.over.Lock()
	defer k.over.Unlock()
	return k.over.err
}

// Value implements context.Context.
func (k *call) Value(key any) any {
	if k.stream != nil && key == (streamKey{}) {
		return k.stream
	}
	return k.Context.Value(key)
}

// AfterFunc is context.AfterFunc for this context. Package context looks for this method: without
// it a derived context costs a goroutine.
func (k *call) AfterFunc(f func()) (stop func() bool) {
	k.over.Lock()
	defer k.over.Unlock()
	if k.over.err != nil {
		go f()
		return func() bool { return false }
	}
	entry := &f
	k.over.after = append(k.over.after, entry)
	return func() bool {
		k.over.Lock()
		defer k.over.Unlock()
		i := slices.Index(k.over.after, entry)
		if i >= 0 {
			k.over.after = slices.Delete(k.over.after, i, i+1)
		}
		return i >= 0
	}
}
