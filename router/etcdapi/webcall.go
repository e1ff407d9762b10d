package etcdapi

import (
	"context"
	"crypto/rand"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/flotilla-kv/flotilla/router/admission"
)

// webBytes is how many bytes the gateway has in memory for each byte of an answer, about: the message, its JSON, and
// what both grew from.
const webBytes = 4

// webCallKey is the metadata by which an RPC of the gateway tells which HTTP request it is for. Its value cannot be
// guessed: a client that names another's request would free the room of an answer too early.
const webCallKey = "flotilla-web-call"

// webCalls are the HTTP requests that the gateway is serving. What they hold of the node's memory they hold until their
// clients have taken all of the JSON (E8), which is long after the gateway itself has taken the answer.
type webCalls struct {
	mu    sync.Mutex
	calls map[string]*webCall
}

// webCall is one such request.
type webCall struct {
	id   string
	conn *http.ResponseController

	mu struct {
		sync.Mutex
		answers []*admission.Answer
		ended   bool
	}
}

type webCallCtx struct{}

// serve wraps the gateway.
func (w *webCalls) serve(gateway http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		call := &webCall{id: rand.Text(), conn: http.NewResponseController(rw)}
		w.mu.Lock()
		if w.calls == nil {
			w.calls = make(map[string]*webCall)
		}
		w.calls[call.id] = call
		w.mu.Unlock()
		defer func() {
			w.mu.Lock()
			delete(w.calls, call.id)
			w.mu.Unlock()
			call.end()
		}()
		gateway.ServeHTTP(rw, r.WithContext(context.WithValue(r.Context(), webCallCtx{}, call)))
	})
}

// of returns the HTTP request for which an RPC is made; nil if there is none.
func (w *webCalls) of(ctx context.Context) *webCall {
	id := metadata.ValueFromIncomingContext(ctx, webCallKey)
	if len(id) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[id[0]]
}

// hold keeps an answer's room until the request has ended.
func (c *webCall) hold(a *admission.Answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.ended {
		a.Leave()
		return
	}
	c.mu.answers = append(c.mu.answers, a)
}

func (c *webCall) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.ended = true
	for _, a := range c.mu.answers {
		a.Leave()
	}
}

// hangup ends the client's connection, unless it has taken the answer.
func (c *webCall) hangup() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.ended { // otherwise the connection serves another request
		_ = c.conn.SetWriteDeadline(time.Now()) // where it cannot be set, there is nothing to end
	}
}

// webConn is the gateway's connection.
type webConn struct{ grpc.ClientConnInterface }

// Invoke implements grpc.ClientConnInterface. It replaces what a client has given in a header for metadata.
func (c webConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if call, ok := ctx.Value(webCallCtx{}).(*webCall); ok {
		md, _ := metadata.FromOutgoingContext(ctx)
		md = md.Copy()
		md.Set(webCallKey, call.id)
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	return c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}
