// Package admission decides what a node accepts while it is asked for more than it can do.
//
//	request ─> Room ─> router ─> Lanes ─> the write's shard
//	            │                  │
//	            └── full: refused  └── queued; waited too long: refused
//
//	answer <── client's connection <── Answers <── a read's shards
//	                                      │
//	                                      └── no room: read again in its turn; waited too long: refused
//
// Room bounds the requests that a node has accepted and not yet answered, and thereby its
// memory. Lanes keep writes out of queues that they could not leave any more, those in front of
// a shard's log. A write that is queued here costs nothing but memory, can be abandoned, and
// needs no goroutine. Answers bounds the memory of answers to reads: nobody knows how large one becomes
// before it is read, so it asks for room as it grows. All refuse with shard.ErrOverloaded. None knows what a
// request is or who sent it.
//
// Writes are queued rather than refused at once, because a refused client comes back, and
// refusing a request costs a node a third of serving it.
//
// Invariants:
//
//	Q1  Requests that were accepted and not answered stay within the bounds of their class, by
//	    number and by bytes, and nothing is accepted while the node is short of memory. A
//	    request refused for this reason was not examined.
//	Q2  Writes leave room for reads. Lease renewals need no room: their streams bound them.
//	Q3  A shard has at most as many writes in flight as it answers within about Latency, or
//	    within a few times the latency of a lone write. Other writes are queued in arrival order;
//	    when queues grow too long, the newest are served in time rather than all of them
//	    too late.
//	Q4  A queued write has not been sent to anyone. It leaves the queue when its caller gives up,
//	    after WaitMax, or when its caller's remaining time would not suffice.
//	Q5  A shard that does not answer queues at most as many writes as there is room left for
//	    the writes of all other shards.
//	A1  What answers to reads hold together is within the bound, or is a single answer's. Small answers ask for nothing;
//	    answers to writes are counted, and not refused.
//	A2  Of those who share room at most one answer, the one whose turn it is, waits for more while it holds some. All
//	    others wait with empty hands, so no two wait for each other.
//	A3  Turns come in arrival order. An answer waits for WaitMax altogether, then it is refused. One that comes when many
//	    wait is refused at once.
//	A4  While an answer waits for room in its turn, no other gets any: a large one is not overtaken for ever.
//	A5  What an answer holds is returned when its client has taken it or is gone. While others wait, a client
//	    that takes it too slowly is disconnected.
//	A6  Whoever has the turn passes it on, whatever becomes of the answer: also when it is small after all.
//	A7  Gets, pages and long lists have room of their own, so that no list makes a get or a page wait, and they none. A list
//	    begins as a page, and leaves the pages' room when it becomes longer than one.
//	A8  While clients have not taken what writes have answered, and that is more than its share, writes that answer with
//	    keys are not begun. What a write in flight answers is counted, and never refused.
package admission
