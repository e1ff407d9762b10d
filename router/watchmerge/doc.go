// Package watchmerge makes one watch of the feeds of all shards that a span lies in.
//
// It owns the parts of a span, how far each has come, and what has to wait for a part
// that is behind. It refuses to know where shards are (package router) and to whom events
// go: it is pulled, and keeps no goroutine for a watch. One works only while a part is
// being opened or a shard is being asked.
//
//	feed of part 1 ──> held ─┐
//	feed of part 2 ──> held ─┼─> sorted up to the smallest Through ─> Poll
//	feed of part 3 ──> held ─┘        │ a part is behind
//	      ^                           └─> its shard is asked to promise (paced, shared)
//	      └── ended: opened again, elsewhere, right behind what it has given
//
// What a watch promises, whatever shards do (split, merge, move, lose leaders, lag):
//
//	W1  Ordered: events come in the order of their revisions.
//	W2  Unique: no event comes twice.
//	W3  Atomic: all events of a revision come in one Poll, also those of several parts: a
//	    transaction from before a split touches both halves.
//	W4  Reliable: no event of the span from the first revision on is left out.
//	W5  Resumable: a watch that starts at the revision after the last one given goes on
//	    exactly there.
//	W6  Bookmarkable: Through is a promise, as a feed's: all up to it has been given.
//	W7  Bounded: a part that is ahead is left alone once it holds heldMax events, and the
//	    part that is behind never is, so it always goes on.
//	W8  Quiet: a shard is asked to promise, or to close, only while an event or an Await waits for it.
package watchmerge
