package router

import (
	"context"

	"github.com/flotilla-kv/flotilla/shard"
)

// Subscription asks one shard, at one node, for the changes of a span from a revision on.
type Subscription struct {
	Shard shard.ID
	Epoch uint64 // T2
	// Span lies in the shard's.
	Span shard.Span
	// From is the first revision wanted; above 0.
	From shard.Revision
	// PrevKV adds to each change what it replaced.
	PrevKV bool
}

// Feed is a subscription under way. It is pulled: what its holder does not take costs
// nobody memory beyond a bound, and never holds up the shard.
type Feed interface {
	// Poll returns what there is now and does not wait for more, though it may read
	// history from the store. At most about max events are returned, whole revisions
	// always. An error ends the feed for good: shard.CompactedError when history from the
	// feed's position on is gone; WrongShardError, NoReplicaError, ErrUnavailable, ErrStopped
	// when another replica or shard has to be asked from the position on. All that the feed has
	// come to, without changes too, has been returned before.
	Poll(max int) (shard.Changes, error)
	// Await has ready called once Poll can return a Through of rev or above.
	Await(rev shard.Revision)
	// Close ends the feed; ready may still be called by what runs already.
	Close()
}

// Subscriber opens feeds, as Sender sends requests. ready is called whenever Poll has
// events, an end, or an awaited Through that it did not have before; what one Poll left is
// such a thing. It must not block and must not call the feed. Subscribe, Poll and Await may
// call it themselves before they return, so it must not take a lock that is held around
// them. The feed outlives ctx, which bounds only the opening.
type Subscriber interface {
	Subscribe(ctx context.Context, node shard.NodeID, sub Subscription, ready func()) (Feed, error)
}

// Heeder tells feeds of this node what leaders promise: from the entry of the shard's Raft
// log with that index on, no change has a revision up to floor. It returns once it has.
type Heeder interface {
	Heed(ctx context.Context, id shard.ID, floor shard.Revision, index uint64) error
}
