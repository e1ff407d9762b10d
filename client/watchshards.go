package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/flotilla-kv/flotilla/router/watchmerge"
	"github.com/flotilla-kv/flotilla/shard"
)

// Position is the progress of a watch of shards in each part of its span. It can be stored as JSON
// (docs/FORMATS.md) and does not depend on where shards are.
type Position struct {
	Format int    `json:"format"` // 1
	Parts  []Part `json:"parts"`  // in key order, without gaps
}

// Part is a part of the span.
type Part struct {
	Start   []byte `json:"start"`
	End     []byte `json:"end"` // empty: to the end of the keyspace
	Through int64  `json:"through"`
}

const positionFormat = 1

// ParsePosition is the inverse of json.Marshal.
func ParsePosition(data []byte) (*Position, error) {
	p := &Position{}
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("parse the position of a watch: %w", err)
	}
	if p.Format != positionFormat {
		return nil, fmt.Errorf("the position of a watch has format %d, this version reads format %d", p.Format, positionFormat)
	}
	for i, part := range p.Parts {
		span := shard.Span{Start: part.Start, End: part.End}
		if span.Empty() || part.Through < 0 || i > 0 && string(part.Start) != string(p.Parts[i-1].End) {
			return nil, fmt.Errorf("the position of a watch has no part %d that continues the one before it", i)
		}
	}
	if len(p.Parts) == 0 {
		return nil, fmt.Errorf("the position of a watch has no parts")
	}
	return p, nil
}

// PartChanges are changes of one part of the span, which was one shard's when the watch
// began.
type PartChanges struct {
	// Part is the part's index in Position.Parts.
	Part int
	Changes
}

// WatchShards yields changes like Watch, but of each shard separately: in order within a part of
// the span, unordered between parts, without waiting for the slowest. It begins at where, which it
// advances with what it yields; an empty Position begins now, or FromRevision, and gets its parts.
// Store positions between two steps.
func (c *Client) WatchShards(ctx context.Context, where *Position, key string, options ...Option) iter.Seq2[PartChanges, error] {
	return func(yield func(PartChanges, error) bool) {
		if where == nil {
			yield(PartChanges{}, errors.New("watch shards: where is nil; an empty Position begins now"))
			return
		}
		op := watchOp(key, options)
		if err := c.begin(ctx, where, &op); err != nil {
			yield(PartChanges{}, err)
			return
		}
		due := newDue()
		watches := make([]*watchmerge.Watch, len(where.Parts))
		for i, part := range where.Parts {
			watches[i] = c.merger.Open(watchmerge.Options{
				Span: shard.Span{Start: part.Start, End: part.End}, From: shard.Revision(part.Through + 1), PrevKV: op.previous,
			}, func() { due.add(i) })
			defer watches[i].Close()
		}
		for {
			parts, err := due.take(ctx)
			if err != nil {
				yield(PartChanges{}, c.ended(err))
				return
			}
			for _, i := range parts {
				changes, err := watches[i].Poll(pollEvents)
				if err != nil {
					yield(PartChanges{}, c.ended(err))
					return
				}
				where.Parts[i].Through = max(where.Parts[i].Through, int64(changes.Through))
				if len(changes.Events) > 0 && !yield(PartChanges{i, Changes{changes.Events, int64(changes.Through)}}, nil) {
					return
				}
			}
		}
	}
}

// begin initialises the parts of an empty position.
func (c *Client) begin(ctx context.Context, where *Position, op *Op) error {
	if len(where.Parts) > 0 {
		return op.err
	}
	from, err := c.watchFrom(ctx, op)
	if err != nil {
		return err
	}
	places, err := c.cache.Cover(ctx, op.span())
	if err != nil {
		return fmt.Errorf("watch %.64q: %w", op.get.Key, c.ended(err))
	}
	where.Format = positionFormat
	rest := op.span()
	for _, p := range places {
		part := rest.Intersect(p.Span)
		where.Parts = append(where.Parts, Part{part.Start, part.End, int64(from) - 1})
		rest.Start = p.Span.End
	}
	return nil
}

// due holds the parts that have changes, each once.
type due struct {
	kick chan struct{}

	mu struct {
		sync.Mutex
		parts []int
		in    map[int]bool
	}
}

func newDue() *due {
	d := &due{kick: make(chan struct{}, 1)}
	d.mu.in = make(map[int]bool)
	return d
}

func (d *due) add(part int) {
	d.mu.Lock()
	if !d.mu.in[part] {
		d.mu.in[part] = true
		d.mu.parts = append(d.mu.parts, part)
	}
	d.mu.Unlock()
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// take waits until there are some, and returns them.
func (d *due) take(ctx context.Context) ([]int, error) {
	for {
		d.mu.Lock()
		parts := d.mu.parts
		d.mu.parts = nil
		clear(d.mu.in)
		d.mu.Unlock()
		if len(parts) > 0 {
			return parts, nil
		}
		select {
		case <-d.kick:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
