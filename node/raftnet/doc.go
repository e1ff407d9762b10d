// Package raftnet carries Raft messages and snapshots between nodes. It shares the port
// that nodes also use for gRPC, so that a node needs one peer address, one certificate
// and one firewall rule; the first bytes of a connection identify its protocol.
//
// Frames: length (4, big endian) ‖ CRC-32C of kind and payload (4) ‖ kind (1) ‖ CRC-32C of the bytes so far (4) ‖ payload.
//
// Invariants:
//
//	X1  A frame with a wrong checksum, kind or size ends its connection, and nothing of it
//	    reaches Raft. A wrong header does so before anything that follows it has come.
//	X2  A snapshot transfer succeeds only after the receiver has accepted every chunk: the
//	    sender waits for the acknowledgement of its last frame.
//	X3  Close returns after every connection and goroutine of the transport has ended.
//	X4  A peer that returns, after a restart or a network partition, receives messages again
//	    within about two seconds: a receiver sends a sign of life every second, and the sender
//	    abandons and redials a connection on which none arrives.
//	X5  Raft messages are suppressed only if they are redundant with what was just sent on the
//	    same connection, between the same replicas and in the same term: an acknowledgement that
//	    repeats the last one within a tenth of a second; a heartbeat that no read waits for, within
//	    Quiet after entries; a commit index ahead of entries that carry it too. A follower's
//	    report that its in-memory log is not too large is suppressed as well.
//	X6  A heartbeat or heartbeat response that no read waits for may be delayed to travel with
//	    other messages, by a few milliseconds at most, and is not held behind other messages.
//	X7  A message that only tells a follower the commit index may wait for the next entries: only
//	    while batches are spaced (Space) and arrive at that rate, no longer than that spacing,
//	    and it is sent before anything that a read waits for. No other message waits.
//	X8  Raft learns the sender's address from the first message of each replica on a connection
//	    and again every half second.
//	X9  A chunk of a snapshot for which there is no room is refused before it is written. What has arrived of a snapshot
//	    is removed when its connection ends before the last chunk.
//	X10 A replica is not told that the entry which removes it from its group is committed, for a minute at most. So it
//	    has its vote until its node removes it, which is after those that stay have heard of it.
package raftnet
