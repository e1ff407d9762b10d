// Package admission decides what a node takes in while it is asked for more than it can do.
//
//	request ─> Room ─> router ─> Lanes ─> the write's shard
//	            │                  │
//	            └── full: refused  └── waits for its turn; too long: refused
//
// Room bounds what a node has taken in and not answered, so that its memory is bounded. Lanes
// keep writes from queues that they could not leave any more: those before a shard's log. A
// write that waits here costs nothing but memory, and may be given up; it need not have a
// goroutine. Both refuse with shard.ErrOverloaded. Neither knows what a request is, or who
// sent it.
//
// It makes writes wait rather than refuse them at once: a client that is refused comes
// again, and to refuse it costs a node a third of what to serve it does.
//
// Invariants:
//
//	Q1  What has been taken in and not answered stays within the bounds of its class, by
//	    number and by bytes, and while the node is short of memory nothing is taken in. What
//	    is refused for that was not looked at.
//	Q2  Writes leave room for reads. Renewals of leases need none: streams bound their own.
//	Q3  At most as many writes of one shard are under way as it answers in about
//	    Latency, or in a few times the time that it takes for one alone. Others wait, in the
//	    order in which they came; when that takes too long, the newest are served in time
//	    rather than all too late.
//	Q4  A write that waits has not been sent to anybody. It leaves when its caller does, when it
//	    has waited for WaitMax, and when what is left of its caller's time would not do.
//	Q5  A shard that does not answer keeps no more writes waiting than there is room left for
//	    those of all others.
package admission
