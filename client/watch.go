package client

import (
	"context"
	"fmt"
	"iter"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/router/watchmerge"
	"github.com/flotilla-kv/flotilla/shard"
)

// pollEvents is the approximate number of events that one step of a watch yields.
const pollEvents = 256

// Changes are changes of a span: events in revision order, with all those of a revision together.
type Changes struct {
	Events []*mvccpb.Event
	// Through is a promise that nothing at or below this revision will follow. A watch
	// FromRevision(Through+1) continues exactly here.
	Through int64
}

// Watch yields the changes of a key, or with WithPrefix and similar options of a span, from now on
// or FromRevision. Those of several shards are merged into one order. It ends with an error:
// shard.ErrCompacted when history that was not yielded yet is gone, or when ctx ends. Splits, moves
// and elections are invisible.
func (c *Client) Watch(ctx context.Context, key string, options ...Option) iter.Seq2[Changes, error] {
	return func(yield func(Changes, error) bool) {
		op := watchOp(key, options)
		from, err := c.watchFrom(ctx, &op)
		if err != nil {
			yield(Changes{}, err)
			return
		}
		kick := make(chan struct{}, 1)
		w := c.merger.Open(watchmerge.Options{Span: op.span(), From: from, PrevKV: op.previous}, func() {
			select {
			case kick <- struct{}{}:
			default:
			}
		})
		defer w.Close()
		for {
			select {
			case <-kick:
			case <-ctx.Done():
				yield(Changes{}, c.ended(context.Cause(ctx)))
				return
			}
			changes, err := w.Poll(pollEvents)
			if err != nil {
				yield(Changes{}, c.ended(err))
				return
			}
			if len(changes.Events) > 0 && !yield(Changes{changes.Events, int64(changes.Through)}, nil) {
				return
			}
		}
	}
}

// watchFrom is the first revision of a watch: the one after the present state, if none is given.
func (c *Client) watchFrom(ctx context.Context, op *Op) (shard.Revision, error) {
	switch {
	case op.err != nil:
		return 0, op.err
	case len(op.get.Key) == 0 || op.span().Empty():
		return 0, fmt.Errorf("watch %.64q: the span has no keys", op.get.Key)
	case op.get.Revision > 0:
		return shard.Revision(op.get.Revision), nil
	}
	now, err := c.router.Settle(ctx, op.span())
	if err != nil {
		return 0, fmt.Errorf("watch %.64q: %w", op.get.Key, c.ended(err))
	}
	return now + 1, nil
}
