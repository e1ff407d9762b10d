package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// Range reads a span, from one shard or as an exact cut over several (T3).
func (r *Router) Range(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := r.minted(ctx, shard.Revision(req.Revision)); err != nil {
		return nil, err
	}
	span := shard.RequestSpan(req.Key, req.RangeEnd)
	var resp *pb.RangeResponse
	err := r.retrying(ctx, func(n int) error {
		p, err := r.cfg.Cache.Lookup(ctx, req.Key)
		if err != nil {
			return err
		}
		if span.Empty() || p.Span.ContainsSpan(span) {
			resp, err = r.rangeOne(ctx, p, n, req)
		} else {
			resp, err = r.rangeMany(ctx, span, req)
		}
		return err
	})
	return resp, err
}

// rangeOne lets one shard answer the whole request.
func (r *Router) rangeOne(ctx context.Context, p Place, n int, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	sub := &Request{
		Op: routerpb.Op_OP_RANGE, Message: req, Serializable: req.Serializable,
		At: shard.Revision(max(req.Revision, 0)),
	}
	node := r.reader(p, n)
	reply, err := r.send(ctx, p, node, sub)
	var notClosed *shard.NotClosedError
	if errors.As(err, &notClosed) {
		if err := r.closer.reach(ctx, p, sub.At); err != nil {
			return nil, err
		}
		sub.Closed = true
		reply, err = r.send(ctx, p, node, sub)
	}
	if err != nil {
		return nil, err
	}
	resp := reply.Message.(*pb.RangeResponse)
	resp.Header = header(reply.Rev)
	return resp, nil
}

// rangeMany reads a span of several shards as one cut and assembles the answer.
func (r *Router) rangeMany(ctx context.Context, span shard.Span, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	cut, err := r.cut(ctx, span, shard.Revision(max(req.Revision, 0)), req.Serializable)
	if err != nil {
		return nil, err
	}
	o := listing.FetchOptions{Limit: listing.FetchLimit(req), KeysOnly: req.KeysOnly, CountOnly: req.CountOnly}
	var all listing.Fetched
	if o.Limit == 0 {
		all, err = r.fetchParallel(ctx, cut, o)
	} else {
		all, err = r.fetch(ctx, cut, span, o)
	}
	if err != nil {
		return nil, err
	}
	resp := listing.Respond(req, all)
	resp.Header = header(cut.header)
	return resp, nil
}

// cut is an exact snapshot of a span: every write at or below at is readable, every
// later one gets a higher revision.
type cut struct {
	at     shard.Revision
	header shard.Revision // what the response's header says
	places []Place
	span   shard.Span
	// loose cuts (serializable reads) take whatever each local replica has.
	loose bool
}

// cut finds the cut for a read: at the given revision, or the span's latest for 0.
func (r *Router) cut(ctx context.Context, span shard.Span, at shard.Revision, serializable bool) (cut, error) {
	places, err := r.cfg.Cache.Cover(ctx, span)
	if err != nil {
		return cut{}, err
	}
	views, err := r.probe(ctx, places, serializable)
	if err != nil {
		return cut{}, err
	}
	c := cut{at: at, places: places, span: span}
	for _, v := range views {
		c.header = max(c.header, v.Rev)
	}
	if at == 0 {
		c.at, c.loose = c.header, serializable || r.cfg.Knobs.SkipClose
	}
	if c.loose {
		return c, nil
	}
	errs := make([]error, len(places))
	var wg sync.WaitGroup
	for i, p := range places {
		if views[i].Floor < c.at {
			wg.Go(func() { errs[i] = r.closer.reach(ctx, p, c.at) })
		}
	}
	wg.Wait()
	return c, errors.Join(errs...)
}

// probe asks every place for its view after a read barrier.
func (r *Router) probe(ctx context.Context, places []Place, serializable bool) ([]*Reply, error) {
	views := make([]*Reply, len(places))
	errs := make([]error, len(places))
	var wg sync.WaitGroup
	for i, p := range places {
		wg.Go(func() {
			errs[i] = r.retrying(ctx, func(n int) (err error) {
				if n > 0 { // the map may have changed; the caller starts over then
					if p, err = r.cfg.Cache.Lookup(ctx, p.Span.Start); err != nil {
						return err
					}
					if !p.Span.Equal(places[i].Span) {
						return fmt.Errorf("shard %d changed its span: %w", p.ID, errMapChanged)
					}
				}
				views[i], err = r.send(ctx, p, r.reader(p, n), &Request{Op: routerpb.Op_OP_PROBE, Serializable: serializable})
				return err
			})
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return views, nil
}

// errMapChanged ends a read whose shards changed under it; it is tried again whole.
var errMapChanged = fmt.Errorf("shards changed during the request: %w", shard.ErrUnavailable)

// fetchParallel reads all shards of the cut at once, for reads without a limit.
func (r *Router) fetchParallel(ctx context.Context, c cut, o listing.FetchOptions) (listing.Fetched, error) {
	parts := make([]listing.Fetched, len(c.places))
	errs := make([]error, len(c.places))
	var wg sync.WaitGroup
	for i, p := range c.places {
		wg.Go(func() { parts[i], errs[i] = r.fetch(ctx, c, c.span.Intersect(p.Span), o) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return listing.Fetched{}, err
	}
	var all listing.Fetched
	for _, part := range parts {
		all.KVs = append(all.KVs, part.KVs...)
		all.Count += part.Count
	}
	return all, nil
}

// fetch reads a span of the cut in key order, shard after shard. Once the limit is
// reached, the rest is only counted.
func (r *Router) fetch(ctx context.Context, c cut, span shard.Span, o listing.FetchOptions) (listing.Fetched, error) {
	var all listing.Fetched
	limit := o.Limit
	for {
		part, end, err := r.fetchPart(ctx, c, span, o)
		if err != nil {
			return listing.Fetched{}, err
		}
		all.KVs = append(all.KVs, part.KVs...)
		all.Count += part.Count
		if end == nil {
			return all, nil
		}
		span.Start = end
		if limit > 0 {
			o.Limit = limit - int64(len(all.KVs))
			o.CountOnly = o.CountOnly || o.Limit <= 0
			o.Limit = max(o.Limit, 0)
		}
	}
}

// fetchPart reads what the shard at the span's start owns of it. It returns where
// the next part starts, nil when there is none. Shards may have split or moved since
// the cut was made: their successors keep its promise (R4).
func (r *Router) fetchPart(ctx context.Context, c cut, span shard.Span, o listing.FetchOptions) (listing.Fetched, []byte, error) {
	var got listing.Fetched
	var end []byte
	err := r.retrying(ctx, func(n int) error {
		p, err := r.cfg.Cache.Lookup(ctx, span.Start)
		if err != nil {
			return err
		}
		part := span.Intersect(p.Span)
		req := &Request{
			Op: routerpb.Op_OP_FETCH, Serializable: true, At: c.at, Closed: !c.loose, Limit: o.Limit,
			Message: &pb.RangeRequest{Key: part.Start, RangeEnd: rangeEnd(part), KeysOnly: o.KeysOnly, CountOnly: o.CountOnly},
		}
		if c.loose {
			req.At = 0
		}
		reply, err := r.send(ctx, p, r.reader(p, n), req)
		var notClosed *shard.NotClosedError
		if errors.As(err, &notClosed) {
			if err := r.closer.reach(ctx, p, c.at); err != nil {
				return err
			}
			return fmt.Errorf("shard %d was closed again: %w", p.ID, shard.ErrUnavailable)
		}
		if err != nil {
			return err
		}
		resp := reply.Message.(*pb.RangeResponse)
		got = listing.Fetched{KVs: resp.Kvs, Count: resp.Count}
		end = nil
		if !bytes.Equal(part.End, span.End) {
			end = part.End
		}
		return nil
	})
	return got, end, err
}

// minted refuses a revision above every one that was minted anywhere. The largest
// this process has seen answers at once; beyond it the shards are asked.
func (r *Router) minted(ctx context.Context, rev shard.Revision) error {
	if rev <= r.cfg.Revisions.Seen() || rev <= 0 {
		return nil
	}
	latest, err := r.latest(ctx, shard.Everything())
	if err != nil {
		return err
	}
	if rev > latest {
		return shard.ErrFutureRevision
	}
	return nil
}

// latest is the largest revision of any shard that overlaps the span.
func (r *Router) latest(ctx context.Context, span shard.Span) (shard.Revision, error) {
	var latest shard.Revision
	err := r.retrying(ctx, func(int) error {
		places, err := r.cfg.Cache.Cover(ctx, span)
		if err != nil {
			return err
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

// Chunks of a streamed range: the first is small so that the reader starts early.
const (
	streamFirstKeys  = 10
	streamChunkBytes = 1 << 20
)

// RangeStream reads a span like Range and hands it over in chunks; only the last one
// carries header, count and more.
func (r *Router) RangeStream(ctx context.Context, req *pb.RangeRequest, send func(*pb.RangeResponse) error) error {
	if req.CountOnly {
		resp, err := r.Range(ctx, req)
		if err != nil {
			return err
		}
		return send(resp)
	}
	if err := r.minted(ctx, shard.Revision(req.Revision)); err != nil {
		return err
	}
	span := shard.RequestSpan(req.Key, req.RangeEnd)
	if span.Empty() {
		resp, err := r.Range(ctx, req)
		if err != nil {
			return err
		}
		return send(resp)
	}
	var c cut
	err := r.retrying(ctx, func(int) (err error) {
		c, err = r.cut(ctx, span, shard.Revision(max(req.Revision, 0)), req.Serializable)
		return err
	})
	if err != nil {
		return err
	}
	return r.stream(ctx, c, span, req, send)
}

func (r *Router) stream(ctx context.Context, c cut, span shard.Span, req *pb.RangeRequest, send func(*pb.RangeResponse) error) error {
	last := &pb.RangeResponse{Header: header(c.header)}
	keys, sent := int64(streamFirstKeys), int64(0)
	for {
		wanted := keys
		if req.Limit > 0 {
			wanted = min(wanted, req.Limit-sent)
		}
		o := listing.FetchOptions{Limit: wanted + 1, KeysOnly: req.KeysOnly}
		got, err := r.fetch(ctx, c, span, o)
		if err != nil {
			return err
		}
		if sent == 0 {
			last.Count = got.Count
		}
		kvs := got.KVs
		rest := int64(len(kvs)) > wanted
		if rest {
			kvs = kvs[:wanted]
		}
		sent += int64(len(kvs))
		done := !rest || (req.Limit > 0 && sent >= req.Limit)
		if done {
			last.Kvs, last.More = kvs, rest
			return send(last)
		}
		if err := send(&pb.RangeResponse{Kvs: kvs}); err != nil {
			return err
		}
		span.Start = append(bytes.Clone(kvs[len(kvs)-1].Key), 0)
		keys = nextChunk(kvs)
	}
}

// nextChunk guesses how many keys fill a chunk from the size of the last ones.
func nextChunk(kvs []*mvccpb.KeyValue) int64 {
	size := 1
	for _, kv := range kvs {
		size += len(kv.Key) + len(kv.Value) + 32
	}
	return int64(max(streamFirstKeys, streamChunkBytes*len(kvs)/size))
}
