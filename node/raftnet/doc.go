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
//	X5  Of Raft's messages none is left out but these, whose sense has just been told on the same
//	    connection, between the same replicas and in the same term: an acknowledgement that repeats
//	    the last one, within a tenth of a second; a heartbeat that no read waits for, within
//	    Quiet after entries; what is committed, before entries that say it too. And
//	    a follower's report that it keeps not too much in memory.
//	X6  A heartbeat, or an answer to one, that no read waits for may wait for other messages: no
//	    longer than a few milliseconds, and not behind others.
//	X7  What tells a follower only that entries are committed may wait for the next entries: while
//	    batches start apart (Space) and come as often as that, for no longer than they are apart,
//	    and it goes before what a read waits for. No other message waits.
//	X8  Raft is told the address that messages come from with the first of each replica on a connection,
//	    and again every half a second.
package raftnet
