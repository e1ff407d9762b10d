// Package rpcfront serves gRPC connections. It answers small unary calls, at a third of grpc-go's cost, and
// bidirectional streams itself, and leaves everything else to a grpc-go server behind it.
//
//	client ── HTTP/2 ──> conn ──┬─ a small unary call ──> call ────> handler or starter ──> out ──> client
//	                            ├─ a bidirectional one ─> Stream ──> handler ──> out
//	                            └─ any other stream ────> relay ═══> grpc.Server ══> out
//
// It owns the client's connection: frames, flow control, pings, and which of the two answers a stream. The
// relay is what grpc-go sees of the connection: a net.Conn from which some of the client's streams are missing. Responses
// to unusual requests, keepalive enforcement and graceful shutdown are grpc-go's.
//
// It is not a second gRPC implementation: no compression, no metadata in responses, no stats handlers, no
// TLS (a listener may add it). Handlers and interceptors are the same functions as grpc-go's.
//
// Invariants:
//
//	F1  A unary call is answered here if it arrived whole, in one message and one frame; a bidirectional one, from its
//	    headers on. In both cases the headers contain nothing that could be refused. Every other stream reaches grpc-go
//	    as the client sent it, in stream-ID order. Clients cannot tell which of the two has answered.
//	F2  Once grpc-go has sent headers, the client's HPACK dynamic table is grpc-go's. Until then the headers of responses
//	    from here enter the table, which grpc-go need not know, because entries leave it in the order in which they came.
//	    Afterwards responses from here neither change the table nor refer to it.
//	F3  The client is never sent more data than its flow-control windows allow, per stream and per connection, and
//	    data that waits for its stream's window costs other streams nothing.
//	F4  Every byte that the client sends is credited to its connection window exactly once, by whoever
//	    consumed it, and to its stream's window when it was received.
//	F5  A handler's context ends with its stream: on the client's reset, at its deadline, with the connection, after
//	    its response. So does whatever the handler waits for.
//	F6  Everything buffered for a client, for grpc-go or for a handler is bounded. Beyond the bounds the client is not
//	    read; per stream there is one message that its handler waits for, and what the client may send before
//	    the handler receives it. Handlers whose calls were reset are bounded too.
//	F7  After Stop no goroutine, connection, handler or started call is left.
//	F8  A stream's messages arrive in order and whole, followed by its end.
//	F9  A started call that has no response yet costs memory, but no goroutine: many calls that wait, or that are
//	    answered all at once, do not delay others. A response that may be delayed is sent at the next
//	    tick at the latest.
//	F10 A ping is answered exactly once: at once if nothing was sent since the last one, otherwise within
//	    Config.PongDelay.
package rpcfront
