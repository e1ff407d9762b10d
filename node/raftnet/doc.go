// Package raftnet carries Raft messages and snapshots between nodes over the port
// they also speak gRPC on, so that a node needs one peer address, one certificate
// and one firewall rule. A connection says with its first bytes which it is.
//
// Frames: length (4, big endian) ‖ CRC-32C of kind and payload (4) ‖ kind (1) ‖ payload.
//
// Invariants:
//
//	X1  A frame whose checksum, kind or size is wrong ends its connection; nothing of it
//	    reaches Raft.
//	X2  A snapshot connection closes well only after the receiver has taken every chunk:
//	    the sender waits for an acknowledgement of its last frame.
//	X3  Close returns after every connection and goroutine of the transport is gone.
//	X4  A peer that is back, after a restart or a cut network, is sent messages within
//	    about two seconds: a receiver says every second that it is there, and a
//	    connection on which it does not is given up and dialled anew.
//	X5  Of Raft's messages none is kept back but an acknowledgement that repeats the last one
//	    to the same replica, in the same term and on the same connection, within a tenth of
//	    a second, and a follower's report that it keeps not too much in memory.
//	X6  No message waits for others but a heartbeat, or an answer to one, that no read waits
//	    for; and that no longer than a few milliseconds, and not behind others.
package raftnet
