package router

import (
	"context"
	"errors"
	"fmt"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// The steps from which package router/watchmerge builds watches. Which step comes next, and when,
// is decided there.

// Source identifies the origin of a feed.
type Source struct {
	Place
	Node shard.NodeID
}

// Compacted is the highest compaction revision that this process knows of.
func (r *Router) Compacted() shard.Revision {
	if r.cfg.Compactions == nil {
		return 0
	}
	return r.cfg.Compactions.Compacted()
}

// Seen is the largest revision that this process has seen.
func (r *Router) Seen() shard.Revision { return r.cfg.Revisions.Seen() }

// Locate returns the place of the shard that owns key, as far as the cache knows.
func (r *Router) Locate(ctx context.Context, key []byte) (Place, error) {
	return r.cfg.Cache.Lookup(ctx, key)
}

// Subscribe opens a feed at a replica of the shard at p; later attempts try its replicas in turn.
// sub needs neither Shard nor Epoch. An error must be passed to Lost.
func (r *Router) Subscribe(ctx context.Context, p Place, attempt int, sub Subscription, ready func()) (Feed, Source, error) {
	source := Source{Place: p, Node: r.reader(p, attempt)}
	if source.Node == 0 {
		return nil, source, fmt.Errorf("watch shard %d, which has no replicas: %w", p.ID, &shard.NoReplicaError{Shard: p.ID})
	}
	if source.Node != r.cfg.Self { // a feed of this node is opened without waiting
		var cancel context.CancelFunc
		ctx, cancel = bounded(ctx)
		defer cancel()
	}
	sub.Shard, sub.Epoch = p.ID, p.Epoch
	feed, err := r.cfg.Subscriber.Subscribe(ctx, source.Node, sub, ready)
	return feed, source, err
}

// here returns the place of the shard that has all of the span, if this node has a replica
// of it to read from.
func (r *Router) here(span shard.Span) (Place, bool) {
	p, ok := r.cfg.Cache.find(span.Start)
	return p, ok && p.Span.ContainsSpan(span) && r.reader(p, 0) == r.cfg.Self
}

// SubscribeHere opens a feed at this node, without waiting, if one of its replicas has all of the
// span as far as the cache knows. If it returns false, the caller uses Subscribe.
func (r *Router) SubscribeHere(sub Subscription, ready func()) (Feed, Source, bool) {
	p, ok := r.here(sub.Span)
	if !ok {
		return nil, Source{}, false
	}
	feed, source, err := r.Subscribe(context.Background(), p, 0, sub, ready)
	return feed, source, err == nil
}

// Lost updates the cache by the error that ended a feed or prevented its opening.
func (r *Router) Lost(source Source, err error) { r.learn(source.Place, source.Node, err) }

// Advance returns once the feeds that come from the source's shard, at the same node, report that
// they reach floor, or will when its replica has applied far enough. For feeds of this node a
// promise of the shard's leader suffices; for others the shard is closed.
func (r *Router) Advance(ctx context.Context, source Source, floor shard.Revision) error {
	if source.Node != r.cfg.Self || r.cfg.Heeder == nil {
		return r.closer.reach(ctx, source.Place, floor)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	var index uint64
	err := r.retrying(ctx, func(n int) error {
		p, err := r.cfg.Cache.Lookup(ctx, source.Span.Start)
		if err != nil {
			return err
		}
		// The shard may have been split or merged with another. Feeds of the keys that it had
		// before and still has continue, and it promises by its present epoch.
		if p.ID != source.ID {
			return errFeedsEnd
		}
		req := mark(shardpb.Kind_CLOSE, floor)
		req.Promise = true
		reply, err := r.sendCommand(ctx, p, n, req)
		if err != nil {
			return again(err)
		}
		index = reply.Index
		return nil
	})
	if err != nil {
		return err
	}
	return r.cfg.Heeder.Heed(ctx, source.ID, floor, index)
}

// errFeedsEnd ends an attempt to advance feeds of a shard that no longer exists: the feeds end too.
var errFeedsEnd = errors.New("the shard is another's by now")

// Settle returns the largest revision of the span after a read barrier, or that of a compaction which the
// span's shards have not heard of yet, once they are closed to it: everything later has a higher one, and a
// watch can begin there.
func (r *Router) Settle(ctx context.Context, span shard.Span) (shard.Revision, error) {
	if rev, ok := r.settledHere(ctx, span); ok {
		return rev, nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	var settled shard.Revision
	err := r.retrying(ctx, func(int) error {
		c, err := r.cut(ctx, span, 0, false)
		if compacted := r.Compacted(); err == nil && c.at < compacted {
			c, err = r.cut(ctx, span, compacted, false)
		}
		settled = c.at
		return err
	})
	return settled, err
}

// SettleHere passes to who, once, what Settle would return, if a single replica on this node can
// answer: a shard is always closed to its own last write. Concurrent calls share the cost, and none
// takes a goroutine. It returns false, and calls nobody, if no replica here can answer. As with
// rangeHere, after an error the caller starts over, with Settle. It may call who before it returns.
func (r *Router) SettleHere(span shard.Span, who Settled) bool {
	p, ok := r.here(span)
	if ok {
		r.settler.settle(p, who)
	}
	return ok
}

// settledHere is SettleHere for a caller that blocks.
func (r *Router) settledHere(ctx context.Context, span shard.Span) (shard.Revision, bool) {
	found := make(found, 1)
	if !r.SettleHere(span, found) {
		return 0, false
	}
	select {
	case rev, ok := <-found:
		return rev, ok
	case <-ctx.Done():
		return 0, false
	}
}

// found receives the revision, or is closed.
type found chan shard.Revision

// Settled implements Settled.
func (f found) Settled(rev shard.Revision, err error) {
	if err == nil {
		f <- rev
	}
	close(f)
}

// errNotCompacted is the error for a shard that has not heard of a compaction yet, which raises its revision.
var errNotCompacted = errors.New("the shard has not heard of the last compaction yet")

// probeHere returns the largest revision of the shard at p after a read barrier, from the replica
// of this node.
func (r *Router) probeHere(ctx context.Context, p Place) (shard.Revision, error) {
	reply, err := r.send(ctx, p, r.cfg.Self, &Request{Op: routerpb.Op_OP_PROBE})
	if err != nil {
		return 0, err
	}
	if reply.Rev < r.Compacted() {
		return 0, errNotCompacted
	}
	return reply.Rev, nil
}

// Latest returns the largest revision of any shard that overlaps one of the spans, after a read
// barrier. Every shard is asked once, however many spans lie in it.
func (r *Router) Latest(ctx context.Context, spans []shard.Span) (shard.Revision, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var latest shard.Revision
	err := r.retrying(ctx, func(int) error {
		var places []Place
		asked := make(map[shard.ID]bool)
		for _, span := range spans {
			over, err := r.cfg.Cache.Cover(ctx, span)
			if err != nil {
				return err
			}
			for _, p := range over {
				if !asked[p.ID] {
					asked[p.ID] = true
					places = append(places, p)
				}
			}
		}
		views, err := r.probe(ctx, places, false)
		if err != nil {
			return err
		}
		for _, v := range views {
			latest = max(latest, v.Rev)
		}
		return nil
	})
	return latest, err
}

// Pause waits before the n-th attempt of something that has no deadline; the first needs no
// waiting. It returns false when ctx ends first.
func Pause(ctx context.Context, attempt int) bool {
	if attempt == 0 {
		return ctx.Err() == nil
	}
	b := backoff{next: min(backoffMin<<min(attempt-1, 10), backoffMax)}
	return b.wait(ctx, nil)
}
