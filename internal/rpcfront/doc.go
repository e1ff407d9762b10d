// Package rpcfront serves gRPC connections. It answers small unary calls, for a third of what grpc-go takes, and
// bidirectional streams itself, and leaves everything else to a grpc-go server behind it.
//
//	client ── HTTP/2 ──> conn ──┬─ a small unary call ──> call ────> handler or starter ──> out ──> client
//	                            ├─ a bidirectional one ─> Stream ──> handler ──> out
//	                            └─ any other stream ────> relay ═══> grpc.Server ══> out
//
// It owns the client's connection: frames, flow control, pings, and who of the two answers a stream. The
// relay is the connection as grpc-go has it, a net.Conn on which some of the client's streams are missing. What gRPC
// says about odd requests, about keepalive and graceful ends, is said by grpc-go.
//
// It refuses to be a second gRPC: no compression, no metadata in answers, no stats handlers, no
// TLS (a listener may do that). Handlers and interceptors are the same functions as grpc-go's.
//
// Invariants:
//
//	F1  A unary call is answered here if it came whole, in one message and one frame, a bidirectional one from its
//	    headers on; in neither's headers is anything that could be refused. Any other stream reaches grpc-go as the
//	    client sent it, in the order of numbers. Nobody sees who has answered.
//	F2  The client's HPACK table is grpc-go's from its first headers on. Until then the headers of answers from here are
//	    added to it, which grpc-go need not know: whatever leaves a table leaves it in the order in which it came. From
//	    then on they neither change it nor rely on it.
//	F3  The client is never sent more data than its windows allow, on a stream and on the connection, and
//	    what waits for its stream's window costs others nothing.
//	F4  Every byte that the client sends is given back to its window of the connection once, by whoever
//	    took it, and to that of its stream when it was received.
//	F5  A handler's context ends with its stream: by the client's reset, at its deadline, with the connection, after
//	    its answer. So does what it waits for.
//	F6  What waits in memory for a client, for grpc-go or for a handler is bounded. Beyond that the client is not read;
//	    of a stream there is one message, for which its handler waits, and what the client may send before
//	    the handler receives it. So are handlers whose calls were reset.
//	F7  After Stop no goroutine, no connection, no handler and no call that was started is left.
//	F8  A stream's messages come in order and whole, and its end behind them.
//	F9  A call that was started and has no answer costs memory, but no goroutine: neither those that
//	    wait nor those whose answers come all at once are in the way of others. An answer that may wait leaves at the next
//	    moment at the latest.
//	F10 A ping is answered, once: at once if nothing was sent since the last one, otherwise within Config.PongDelay.
package rpcfront
