// Package portmux serves several protocols on one listener. It looks at the first
// bytes of every connection, decides which protocol they begin, and hands the
// connection, bytes included, to that protocol's listener.
//
//	root listener --Accept--> undecided (bounded, timed) --decide--> listener of HTTP/2
//	                               |                            \--> listener of HTTP/1
//	                               +--> closed: garbage, silent,  \-> listener of a magic prefix
//	                                    evicted
//
// It owns connections until a protocol's server accepts them. It speaks no protocol,
// writes nothing, and knows nothing of TLS: give it a TLS listener and the handshake
// counts as part of deciding.
//
// Invariants:
//
//	M1  A server reads exactly the bytes the client sent, from the first one on.
//	M2  A connection is decided by the fewest bytes that leave one protocol possible;
//	    no protocol's prefix is a prefix of another's.
//	M3  A connection that is not accepted by a server within Config.Timeout is closed.
//	M4  At most Config.UndecidedMax connections wait; one more closes the oldest, so
//	    a flood of silent clients cannot keep an honest one out.
//	M5  After Close returns, no goroutine and no connection of this package is left.
package portmux
