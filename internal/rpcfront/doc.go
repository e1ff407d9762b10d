// Package rpcfront serves gRPC connections. It answers small unary calls itself, for a third of
// what grpc-go takes, and leaves everything else to a grpc-go server behind it.
//
//	client ── HTTP/2 ──> conn ──┬─ a small unary call ──> call ──┬─> handler ──> out ──> client
//	                            │                                └─> Start ─ ─ ─> Answer
//	                            └─ any other stream ──> relay ══> grpc.Server ══> out
//
// It owns the client's connection: frames, flow control, pings, and who of the two answers a stream. The
// relay is the connection as grpc-go has it, a net.Conn on which some of the client's streams are missing. What gRPC
// says about odd requests, about streams, keepalive and graceful ends, is said by grpc-go.
//
// It refuses to be a second gRPC: no streams, no compression, no metadata in answers, no stats handlers, no
// TLS (a listener may do that). Handlers and interceptors are the same functions as grpc-go's.
//
// Invariants:
//
//	F1  What is answered here came whole, in one message and one frame, with headers in which nothing could
//	    be refused. Any other stream reaches grpc-go as the client sent it, in the order of numbers.
//	F2  Headers of answers from here leave the client's HPACK table as it is: it is grpc-go's.
//	F3  The client is never sent more data than its windows allow, on a stream and on the connection, and
//	    no answer that waits for its stream's window delays others.
//	F4  Every byte that the client sends is given back to its window of the connection once, by whoever
//	    took it.
//	F5  A call's context ends with its stream: by the client's reset, at its deadline, with the connection, after
//	    its answer.
//	F6  What waits in memory for a client or for grpc-go is bounded; beyond that the client is not read.
//	    So are handlers whose calls were reset.
//	F7  After Stop no goroutine, no connection, no handler and no call that was started is left.
package rpcfront
