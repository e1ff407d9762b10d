package router

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// closeSpan makes the shards that own the span promise that no later write gets a
// revision at or below floor.
func (r *Router) closeSpan(ctx context.Context, span shard.Span, floor shard.Revision) error {
	return r.walk(ctx, span, func(p Place, n int, _ shard.Span) error {
		_, err := r.sendCommand(ctx, p, n, mark(shardpb.Kind_CLOSE, floor))
		return again(err)
	})
}

// visit processes the part of a span that the shard at p owns, in the n-th attempt. It is called
// again, with updated knowledge, for as long as its error is certain.
type visit func(p Place, n int, part shard.Span) error

// walk visits every part of the span in key order; shards may have split since the caller looked
// them up.
func (r *Router) walk(ctx context.Context, span shard.Span, f visit) error {
	for {
		var rest []byte
		err := r.retrying(ctx, func(n int) error {
			p, err := r.cfg.Cache.Lookup(ctx, span.Start)
			if err != nil {
				return err
			}
			if err := f(p, n, span.Intersect(p.Span)); err != nil {
				return err
			}
			rest = after(span, p.Span)
			return nil
		})
		if err != nil || rest == nil {
			return err
		}
		span.Start = rest
	}
}

// everywhere visits every part of disjoint spans, all shards concurrently. No key is in two parts
// (T5).
func (r *Router) everywhere(ctx context.Context, spans []shard.Span, f visit) error {
	var parts []shard.Span
	err := r.retrying(ctx, func(int) error {
		parts = parts[:0]
		for _, span := range spans {
			places, err := r.cfg.Cache.Cover(ctx, span)
			if err != nil {
				return err
			}
			for _, p := range places {
				// A place that was looked up later may overlap the one before it.
				if part := span.Intersect(p.Span); !part.Empty() {
					parts = append(parts, part)
				}
				span.Start = p.Span.End
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() { errs[i] = r.walk(ctx, part, f) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// after is the start of what remains of a span after the part that one shard owns, nil when nothing
// remains.
func after(span, owned shard.Span) []byte {
	end := span.Intersect(owned).End
	if bytes.Equal(end, span.End) {
		return nil
	}
	return end
}
