// Package watch is the hub of one replica's watches: it turns what apply has committed
// into feeds of changes that their holders pull.
//
// It owns the recent past in memory and the positions of the subscriptions. It refuses
// to know who watches and why, reads no clock and starts no goroutine; older history it
// reads through a function it is given.
//
//	apply --Publish--> recent changes, shared by all ──────Poll──> holder
//	          │           ^ not there any more: read from the store ──┘
//	          └─ index: whom does a change concern? ──ready──> holder, which polls
//
// A subscription is either armed or behind. An armed one has been given everything up
// to the hub's floor; it lies in the index and has no position of its own to keep. The
// first change that concerns it takes it out of the index, gives it a position and has
// its ready called. From then on it costs Publish nothing, however long it is not
// polled: it is one number. A Poll that gives it everything there is arms it again, and
// what it was given is kept for those of the same span that were where it was.
//
// Invariants:
//
//	W1  A subscription is given each revision at most once, whole, and in order.
//	W2  What Poll has told to be Through has been given: every change of the span from
//	    From to Through, and no other one will come. Through never falls. A feed that ends
//	    tells it once more before the error, so that another can follow right behind it.
//	W3  Publish waits for no subscription and reads nothing. A subscription that is
//	    not polled holds no memory but its own.
//	W4  recent holds every change in (from, floor], or none is taken from it: what was
//	    not recorded, recorded without previous values, dropped, or brought by a snapshot
//	    or by a merge is read from the store.
//	W5  Nothing is read from the store without looking afterwards whether it could be:
//	    history below the compacted revision may be missing, and so may any while a
//	    snapshot is being installed. The feed then ends with an error, not with a gap.
//	W6  ready is called whenever Poll would have something that it did not have: a
//	    change, what a limited Poll left, an awaited floor, an end.
//	W7  A change looks the same from memory and from the store.
//	W8  Whoever subscribes by an epoch that is not the hub's, or to keys the shard has
//	    not or gives away later, is told with WrongShardError.
//	W9  An event costs nothing for those that watch other keys or prefixes.
//	W10 Those who watch the same span and come promptly share one list of events.
//	W11 The floor is that of what was published, or what Heed was told if that is above it.
//	    It is never ahead of a change up to it: a promise counts from an entry of the log on.
package watch
