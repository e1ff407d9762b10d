package router

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// Range reads a span, from one shard or as an exact cut over several (T3).
func (r *Router) Range(ctx context.Context, req *pb.RangeRequest) (resp *pb.RangeResponse, err error) {
	err = within(ctx, func() error {
		resp, err = r.rangeWithin(ctx, req)
		return err
	})
	return resp, err
}

// rangeWithin is Range while there is room for the answer.
func (r *Router) rangeWithin(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	if resp, err, ok := r.rangeHere(ctx, req); ok {
		return resp, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := r.minted(ctx, shard.Revision(req.Revision)); err != nil {
		return nil, err
	}
	span := shard.RequestSpan(req.Key, req.RangeEnd)
	var resp *pb.RangeResponse
	err := r.retrying(ctx, func(n int) error {
		restart(ctx)
		p, err := r.cfg.Cache.Lookup(ctx, req.Key)
		if err != nil {
			return err
		}
		if span.Empty() || p.Span.ContainsSpan(span) {
			resp, err = r.rangeOne(ctx, p, n, req)
			if errors.Is(err, shard.ErrLargeAnswer) {
				restart(ctx)
				resp, err = r.rangeMany(ctx, span, req) // which reads it piece by piece
			}
		} else {
			resp, err = r.rangeMany(ctx, span, req)
		}
		return err
	})
	return resp, err
}

// rangeHere answers the common read, of keys that have a replica on this node, in one attempt that
// ends on its own and therefore needs no separate deadline. If the attempt fails, and not for want of
// room, the caller starts over.
func (r *Router) rangeHere(ctx context.Context, req *pb.RangeRequest) (_ *pb.RangeResponse, _ error, ok bool) {
	p, ok := r.cfg.Cache.find(req.Key)
	if !ok || req.Revision > 0 || !holds(p.Span, req.Key, req.RangeEnd) || r.reader(p, 0) != r.cfg.Self {
		return nil, nil, false
	}
	resp, err := r.rangeOne(ctx, p, 0, req)
	return resp, err, err == nil || admission.NoRoom(err)
}

// Reader reads from the replicas of this node without blocking a goroutine.
type Reader interface {
	// StartRead calls done once with the outcome that Send would return, perhaps before StartRead
	// returns, and on a goroutine that must not be blocked. For a request that can only be answered
	// by blocking it returns false and does nothing.
	StartRead(req *Request, done func(*Reply, error)) bool
}

// StartGet is Range of one key without blocking a goroutine, if this node has a replica of it; done
// is called as Reader says. If done gets false, the read failed, and the caller starts over with
// Range.
func (r *Router) StartGet(key []byte, done func(resp *pb.RangeResponse, ok bool)) bool {
	p, ok := r.cfg.Cache.find(key)
	if !ok || r.cfg.Reader == nil || r.reader(p, 0) != r.cfg.Self {
		return false
	}
	req := &Request{Shard: p.ID, Epoch: p.Epoch, Op: routerpb.Op_OP_RANGE, Message: &pb.RangeRequest{Key: key}}
	return r.cfg.Reader.StartRead(req, func(reply *Reply, err error) {
		if reply, err = r.settle(p, r.cfg.Self, req, reply, err); err != nil {
			done(nil, false)
			return
		}
		done(rangeResponse(reply), true)
	})
}

// holds reports whether a request's keys lie in span; for a single key it does not construct a
// span.
func holds(span shard.Span, key, rangeEnd []byte) bool {
	if len(rangeEnd) == 0 {
		return span.Contains(key)
	}
	return span.ContainsSpan(shard.RequestSpan(key, rangeEnd))
}

// rangeOne lets one shard answer the whole request.
func (r *Router) rangeOne(ctx context.Context, p Place, n int, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	sub := &Request{
		Op: routerpb.Op_OP_RANGE, Message: req, Serializable: req.Serializable,
		At: shard.Revision(max(req.Revision, 0)), Room: room(ctx),
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
		if errors.As(err, &notClosed) {
			return nil, fmt.Errorf("node %s is behind: %w: %w", node, shard.ErrUnavailable, err)
		}
	}
	if err != nil {
		return nil, err
	}
	return rangeResponse(reply), nil
}

func rangeResponse(reply *Reply) *pb.RangeResponse {
	resp := reply.Message.(*pb.RangeResponse)
	if resp.Header == nil {
		resp.Header = &pb.ResponseHeader{}
	}
	resp.Header.Revision = int64(reply.Rev)
	return resp
}

// rangeMany reads a span of several shards, or a large one, as one cut and assembles the answer.
func (r *Router) rangeMany(ctx context.Context, span shard.Span, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	cut, err := r.cut(ctx, span, shard.Revision(max(req.Revision, 0)), req.Serializable)
	if err != nil {
		return nil, err
	}
	o := listing.OptionsFor(req)
	var all listing.Fetched
	if o.Limit == 0 {
		all, err = r.fetchParallel(ctx, cut, o)
	} else {
		all, err = r.fetch(ctx, cut, span, o)
	}
	if err != nil {
		return nil, overtaken(req, err)
	}
	resp := listing.Respond(req, all)
	resp.Header = header(cut.header)
	return resp, nil
}

// overtaken makes a read of the latest state retryable, as a whole, if its cut was compacted before
// all of it was read: the latest state is never compacted.
func overtaken(req *pb.RangeRequest, err error) error {
	if req.Revision <= 0 && errors.Is(err, shard.ErrCompacted) {
		return fmt.Errorf("a compaction overtook the read: %w: %v", shard.ErrUnavailable, err)
	}
	return err
}

// cut is an exact snapshot of a span: every write at or below at is readable, every
// later one gets a higher revision.
type cut struct {
	at     shard.Revision
	header shard.Revision // what the response's header says
	span   shard.Span
	places []Place
	// revs are the revisions that each place had applied when it was asked.
	revs []shard.Revision
	// loose cuts (serializable reads) show each place at its own revision.
	loose bool
}

// holds reports whether the cut closed the shard at p in its present epoch, or found it closed.
func (c *cut) holds(p Place) bool {
	return slices.ContainsFunc(c.places, func(o Place) bool { return o.ID == p.ID && o.Epoch == p.Epoch })
}

// part returns how much of the span can be read in one go, and at which revision.
func (c *cut) part(span shard.Span) (shard.Span, shard.Revision) {
	if !c.loose {
		return span, c.at
	}
	i := slices.IndexFunc(c.places, func(p Place) bool { return p.Span.Contains(span.Start) })
	return span.Intersect(c.places[i].Span), c.revs[i]
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
		c.revs = append(c.revs, v.Rev)
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
			changed := false
			errs[i] = r.retrying(ctx, func(n int) (err error) {
				if n > 0 {
					if p, err = r.cfg.Cache.Lookup(ctx, places[i].Span.Start); err != nil {
						return err
					}
					if changed = !p.Span.Equal(places[i].Span); changed {
						return nil // not to be tried again here: the caller starts over
					}
				}
				views[i], err = r.send(ctx, p, r.reader(p, n), &Request{Op: routerpb.Op_OP_PROBE, Serializable: serializable})
				return err
			})
			if errs[i] == nil && changed {
				errs[i] = fmt.Errorf("shard %d at %.64q: %w", p.ID, p.Span.Start, errMapChanged)
			}
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

// errMapChanged ends a read whose shards changed while it ran; the whole read is retried.
var errMapChanged = fmt.Errorf("shards changed during the request: %w", shard.ErrUnavailable)

// fetchParallel reads all shards of the cut concurrently, for reads without a limit.
func (r *Router) fetchParallel(ctx context.Context, c cut, o listing.FetchOptions) (listing.Fetched, error) {
	parts := make([]listing.Fetched, len(c.places))
	// The others stop when a part fails: what they still read would only take room.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed sync.Once
	var failure error
	var wg sync.WaitGroup
	rest := c.span
	for i, p := range c.places {
		// Places were looked up one after the other: if a shard was merged or its bounds moved
		// meanwhile, a place may overlap the one before it (T5).
		part := rest.Intersect(p.Span)
		rest.Start = p.Span.End
		wg.Go(func() {
			var err error
			if parts[i], err = r.fetch(ctx, c, part, o); err != nil {
				failed.Do(func() { failure = err })
				cancel()
			}
		})
	}
	wg.Wait()
	if failure != nil {
		return listing.Fetched{}, failure
	}
	var all listing.Fetched
	for _, part := range parts {
		all.KVs = append(all.KVs, part.KVs...)
		all.Count += part.Count
	}
	return all, nil
}

// pieceBytes is how much of a shard's part is read at a time: as much as nodes put into one frame. A list may be of any
// size, but a reply may not, and what a node sends to another takes memory there until it was sent.
const pieceBytes = 4 << 20

// fetch reads a span of the cut in key order, piece by piece and shard after shard. Once the limit is reached, the
// rest is only counted; once the size is, nothing more is read.
func (r *Router) fetch(ctx context.Context, c cut, span shard.Span, o listing.FetchOptions) (listing.Fetched, error) {
	var all listing.Fetched
	whole := o
	for {
		part, end, err := r.fetchPart(ctx, c, span, o)
		if err != nil {
			return listing.Fetched{}, err
		}
		all.KVs = append(all.KVs, part.KVs...)
		all.Count += part.Count
		if end == nil || whole.Done(len(all.KVs)) {
			return all, nil
		}
		span.Start = end
		if whole.Bytes > 0 {
			if o.Bytes -= bytesOf(part.KVs); o.Bytes <= 0 {
				all.More = true
				return all, nil
			}
		}
		if whole.Limit > 0 {
			o.Limit = whole.Limit - int64(len(all.KVs))
			o.CountOnly = o.CountOnly || o.Limit <= 0
			o.Limit = max(o.Limit, 0)
		}
	}
}

func bytesOf(kvs []*mvccpb.KeyValue) int64 {
	n := 0
	for _, kv := range kvs {
		n += listing.PairBytes(kv.Key, kv.Value)
	}
	return int64(n)
}

// fetchPart reads the part of the span that the shard at its start owns, or a piece of that. It returns where the
// rest of the span starts, nil when there is none.
func (r *Router) fetchPart(ctx context.Context, c cut, span shard.Span, o listing.FetchOptions) (listing.Fetched, []byte, error) {
	reply, end, err := r.askPart(ctx, c, span, r.reader, func(part shard.Span) *Request {
		return &Request{
			Op: routerpb.Op_OP_FETCH, Limit: o.Limit, NoCount: o.NoCount, Bytes: cmp.Or(o.Bytes, pieceBytes), Room: room(ctx),
			Message: &pb.RangeRequest{Key: part.Start, RangeEnd: rangeEnd(part), KeysOnly: o.KeysOnly, CountOnly: o.CountOnly},
		}
	})
	if err != nil {
		return listing.Fetched{}, nil, err
	}
	resp := reply.Message.(*pb.RangeResponse)
	if n := len(resp.Kvs); n > 0 && resp.More {
		if end = append(bytes.Clone(resp.Kvs[n-1].Key), 0); bytes.Equal(end, span.End) {
			end = nil
		}
	}
	return listing.Fetched{KVs: resp.Kvs, Count: resp.Count}, end, nil
}

// askPart sends the shard at the span's start a request, made by request, for the part of the span
// that the shard owns, to be read at the cut. Shards may have split or moved since the cut was
// made. Their successors keep the promise (R4), but may not know it yet and are then asked to close
// again.
func (r *Router) askPart(ctx context.Context, c cut, span shard.Span, node func(Place, int) shard.NodeID, request func(part shard.Span) *Request) (reply *Reply, end []byte, err error) {
	var closed *shard.Descriptor // what was closed here, beyond the cut
	err = r.retrying(ctx, func(n int) error {
		p, err := r.cfg.Cache.Lookup(ctx, span.Start)
		if err != nil {
			return err
		}
		readable, at := c.part(span)
		part := readable.Intersect(p.Span)
		req := request(part)
		req.Serializable, req.At, req.Closed = true, at, c.loose || c.holds(p) || closed == p.Descriptor
		reply, err = r.send(ctx, p, node(p, n), req)
		var notClosed *shard.NotClosedError
		if errors.As(err, &notClosed) {
			if !c.loose {
				if err := r.closer.reach(ctx, p, at); err != nil {
					return err
				}
				closed = p.Descriptor
			}
			return fmt.Errorf("shard %d: %w: %w", p.ID, shard.ErrUnavailable, err)
		}
		if err != nil {
			return err
		}
		end = after(span, part)
		return nil
	})
	return reply, end, err
}

// minted refuses a revision above every one that was ever assigned. If this process has seen a
// larger one that settles it; otherwise the shards are asked.
func (r *Router) minted(ctx context.Context, rev shard.Revision) error {
	if rev <= r.cfg.Revisions.Seen() || rev <= 0 {
		return nil
	}
	latest, err := r.Latest(ctx, []shard.Span{shard.Everything()})
	if err != nil {
		return err
	}
	if rev > latest {
		return shard.ErrFutureRevision
	}
	return nil
}
