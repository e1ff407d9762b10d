package router

import (
	"bytes"
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// Chunks of a streamed range: the first is small so that the reader starts early.
const (
	streamFirstKeys = 10
	// streamChunkBytes is less than what has to ask for room: a stream that has begun does not end for want of it. A
	// chunk ends with the pair by which it comes to that.
	streamChunkBytes = 192 << 10
)

// RangeStream reads a span like Range and passes it on in chunks of one cut; only the last chunk
// carries header, count and more. RequestTimeout bounds the reading of each chunk, while the whole
// takes as long as its reader.
func (r *Router) RangeStream(ctx context.Context, req *pb.RangeRequest, send func(*pb.RangeResponse) error) error {
	span := shard.RequestSpan(req.Key, req.RangeEnd)
	if req.CountOnly || span.Empty() {
		resp, err := r.Range(ctx, req)
		if err != nil {
			return err
		}
		return send(resp)
	}
	s := &rangeStream{router: r, req: req}
	chunk, err := s.first(ctx, span)
	for ; err == nil && !s.done; chunk, err = s.next(ctx) {
		if err := send(chunk); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	return send(chunk)
}

// rangeStream is an active RangeStream.
type rangeStream struct {
	router *Router
	req    *pb.RangeRequest

	cut  cut
	rest shard.Span // not read yet
	keys int64      // wanted in the next chunk
	read int64      // keys in the chunks so far
	done bool       // the last chunk was read
}

// first makes the cut and reads the first chunk of it.
func (s *rangeStream) first(ctx context.Context, span shard.Span) (*pb.RangeResponse, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	r := s.router
	at := shard.Revision(max(s.req.Revision, 0))
	if err := r.minted(ctx, at); err != nil {
		return nil, err
	}
	var chunk *pb.RangeResponse
	err := r.retrying(ctx, func(int) (err error) {
		s.rest, s.keys, s.read = span, streamFirstKeys, 0
		if s.cut, err = r.cut(ctx, span, at, s.req.Serializable); err != nil {
			return err
		}
		chunk, err = s.chunkWithin(ctx)
		return overtaken(s.req, err)
	})
	return chunk, err
}

// next reads the next chunk. From here on a compaction can end the stream, because what was sent
// cannot be retracted.
func (s *rangeStream) next(ctx context.Context) (*pb.RangeResponse, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return s.chunkWithin(ctx)
}

// chunkWithin reads a chunk for which there is room.
func (s *rangeStream) chunkWithin(ctx context.Context) (chunk *pb.RangeResponse, err error) {
	err = within(ctx, func() error {
		chunk, err = s.chunk(ctx)
		return err
	})
	return chunk, err
}

func (s *rangeStream) chunk(ctx context.Context) (*pb.RangeResponse, error) {
	wanted := s.keys
	if s.req.Limit > 0 {
		wanted = min(wanted, s.req.Limit-s.read)
	}
	// One more key than wanted tells whether there are more.
	got, err := s.router.fetch(ctx, s.cut, s.rest, listing.FetchOptions{
		Limit: wanted + 1, KeysOnly: s.req.KeysOnly, NoCount: true, Bytes: streamChunkBytes,
	})
	if err != nil {
		return nil, err
	}
	chunk := &pb.RangeResponse{Kvs: got.KVs}
	more := got.More
	if int64(len(got.KVs)) > wanted {
		chunk.Kvs, more = got.KVs[:wanted], true
	}
	if more {
		s.rest.Start = append(bytes.Clone(chunk.Kvs[len(chunk.Kvs)-1].Key), 0)
		s.keys = nextChunk(chunk.Kvs)
	}
	s.read += int64(len(chunk.Kvs))
	s.done = !more || s.req.Limit > 0 && s.read >= s.req.Limit
	if !s.done {
		return chunk, nil
	}
	chunk.Header, chunk.Count = header(s.cut.header), s.read
	if more {
		rest, err := s.router.fetch(ctx, s.cut, s.rest, listing.FetchOptions{CountOnly: true})
		if err != nil {
			return nil, err
		}
		chunk.More, chunk.Count = rest.Count > 0, chunk.Count+rest.Count
	}
	return chunk, nil
}

// nextChunk guesses how many keys fill a chunk from the size of the last ones. Nodes of an earlier version do not know
// of a bound in bytes.
func nextChunk(kvs []*mvccpb.KeyValue) int64 {
	return max(streamFirstKeys, streamChunkBytes*int64(len(kvs))/bytesOf(kvs))
}
