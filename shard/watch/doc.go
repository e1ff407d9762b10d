// Package watch is the hub of one replica's watches: it turns what apply has committed
// into feeds of changes that subscribers pull.
//
// It owns the recent changes in memory and the positions of the subscriptions. It does not
// know who watches or why, reads no clock and starts no goroutine; older history it
// reads through a function it is given.
//
//	apply --Publish--> recent changes, shared by all ──────Poll──> subscriber
//	          │           ^ evicted already: read from the store ──┘
//	          └─ index: whom does a change concern? ──ready──> subscriber, which polls
//
// A subscription is either armed or behind. An armed subscription has received everything up
// to the hub's floor; it is in the index and needs no position of its own. The first change
// that concerns it removes it from the index, gives it a position and calls its ready
// function. From then on it costs Publish nothing, however long it goes unpolled: it is a
// single number. A Poll that delivers everything available arms it again, and the list that it
// delivered is kept for other subscriptions to the same span at the same position.
//
// Invariants:
//
//	W1  A subscription receives each revision at most once, whole, and in order.
//	W2  When Poll reports Through, every change of the span from From to Through has been
//	    delivered and no other one will follow. Through never decreases. A feed that ends
//	    reports it once more before the error, so that another feed can continue right after it.
//	W3  Publish waits for no subscription and reads nothing. A subscription that is
//	    not polled holds no memory but its own.
//	W4  recent holds every change in (from, floor], or nothing is served from it: changes that
//	    were not recorded, were recorded without previous values, were dropped, or came with a
//	    snapshot or a merge are read from the store.
//	W5  After every read from the store it is checked that the read was valid: history
//	    below the compaction revision may be missing, and so may any while a snapshot is
//	    being installed. The feed then ends with an error, not with a gap.
//	W6  ready is called whenever Poll would have something new: a change, the rest
//	    after a limited Poll, an awaited floor, the end.
//	W7  A change looks the same from memory and from the store.
//	W8  A subscription by an epoch that is not the hub's, or to keys the shard does not have
//	    or gives away later, ends with WrongShardError.
//	W9  An event costs nothing for subscriptions to other keys or prefixes.
//	W10 Subscriptions to the same span that poll promptly share one list of events.
//	W11 The floor is that of the last Publish, or the one passed to Heed if that is higher.
//	    It never runs ahead of a change at or below it: a promise takes effect at an entry
//	    of the log.
package watch
