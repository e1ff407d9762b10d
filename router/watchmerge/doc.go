// Package watchmerge merges the feeds of all shards of a span into one watch.
//
// It owns the parts of the span, the progress of each, and the events that wait for a part
// that lags. It does not know where shards are (package router) or who receives the events:
// callers pull, and no goroutine is kept per watch. Goroutines run only while a part is
// being opened or a shard is being asked to close.
//
//	feed of part 1 ──> held ─┐
//	feed of part 2 ──> held ─┼─> sorted up to the smallest Through ─> Poll
//	feed of part 3 ──> held ─┘        │ a part lags
//	      ^                           └─> its shard is asked for a promise (paced, shared)
//	      └── ended: reopened elsewhere, right after its last event
//
// Guarantees of a watch, whatever shards do (split, merge, move, lose leaders, lag):
//
//	W1  Ordered: events arrive in revision order.
//	W2  Unique: no event arrives twice.
//	W3  Atomic: all events of a revision arrive in one Poll, also when they come from several
//	    parts: a transaction from before a split can touch both halves.
//	W4  Reliable: no event of the span from the first revision on is lost.
//	W5  Resumable: a watch that starts at the revision after the last one delivered continues
//	    exactly there.
//	W6  Bookmarkable: Through is a promise, as a feed's is: everything up to it has been
//	    delivered.
//	W7  Bounded: a part that is ahead is not polled once it holds heldMax events or heldBytesMax
//	    bytes, and none is while events that need not wait have not been taken. The part that lags
//	    most is polled then, so the watch always makes progress.
//	W8  Quiet: a shard is asked for a promise, or to close, only while an event or an Await
//	    waits for it.
package watchmerge
