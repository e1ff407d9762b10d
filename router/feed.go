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
	// Relay is as in Request.
	Relay shard.NodeID
}

// Feed is an open subscription. It is pulled: events that its holder does not take are held in
// bounded memory and never delay the shard.
type Feed interface {
	// Poll returns what is available now without waiting for more, although it may read history
	// from the store. At most about max events are returned, always whole revisions. An error ends
	// the feed for good: shard.CompactedError when history from the feed's position on is gone;
	// WrongShardError, NoReplicaError, ErrUnavailable or ErrStopped when another replica or shard
	// must be asked, from that position on. The feed's final position has then already been
	// returned, even if it came without changes.
	Poll(max int) (shard.Changes, error)
	// Await asks that ready be called once Poll can return a Through of rev or above.
	Await(rev shard.Revision)
	// Close ends the feed; a call of ready that is already in progress may still finish.
	Close()
}

// Subscriber opens feeds, as Sender sends requests. ready is called whenever Poll has something
// that it did not have before: events, an end, or an awaited Through; events left over by a limited
// Poll count as new. It must not block and must not call the feed. Subscribe, Poll and Await may
// call it before they return, so it must not take a lock that is held around them. The feed
// outlives ctx, which bounds only the opening.
type Subscriber interface {
	Subscribe(ctx context.Context, node shard.NodeID, sub Subscription, ready func()) (Feed, error)
}

// Heeder tells feeds of this node what leaders promise: from the entry with the given index of the
// shard's Raft log on, no change has a revision up to floor. It returns once it has told them.
type Heeder interface {
	Heed(ctx context.Context, id shard.ID, floor shard.Revision, index uint64) error
}
