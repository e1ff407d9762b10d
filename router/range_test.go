package router

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// inWorld runs a story in a bubble: a world without delays or faults and a router on
// node 1.
func inWorld(t *testing.T, splits []string, story func(t *testing.T, w *world, r *Router)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, splits...)
		r, _ := w.newRouter(1, Knobs{})
		story(t, w, r)
		synctest.Wait()
		require.Empty(t, w.broken)
	})
}

func put(t *testing.T, r *Router, key, value string) shard.Revision {
	t.Helper()
	resp, err := r.Put(t.Context(), &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	require.NoError(t, err)
	return shard.Revision(resp.Header.Revision)
}

func all() *pb.RangeRequest { return &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}} }

func keysOf(resp *pb.RangeResponse) []string {
	keys := []string{}
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// An idle span answers the same revision again, and closes nothing twice (T4).
func TestRangeMintsNothing(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		put(t, r, "z", "2")
		for _, key := range []string{"a", "z"} {
			last := put(t, r, key, "3")
			w.locked(func() { w.sent = nil })
			for range 5 {
				resp, err := r.Range(t.Context(), all())
				require.NoError(t, err)
				require.Equal(t, int64(last), resp.Header.Revision)
				require.Equal(t, []string{"a", "z"}, keysOf(resp))
			}
			require.Equal(t, 1, w.count(routerpb.Op_OP_WRITE, shardpb.Kind_CLOSE))
		}
	})
}

// The revision speaks of the whole span, also of shards that the limit keeps out.
func TestRangeWithLimitSpeaksOfTheSpan(t *testing.T) {
	inWorld(t, []string{"g", "m", "t"}, func(t *testing.T, _ *world, r *Router) {
		for _, key := range []string{"a", "b", "h", "n", "u"} {
			put(t, r, key, key)
		}
		last := put(t, r, "v", "v")
		req := all()
		req.Limit = 3
		resp, err := r.Range(t.Context(), req)
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b", "h"}, keysOf(resp))
		require.Equal(t, int64(6), resp.Count)
		require.True(t, resp.More)
		require.Equal(t, int64(last), resp.Header.Revision)
	})
}

// Sorting by value needs the values, also when only keys are asked for.
func TestRangeKeysOnlySortedByValue(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, _ *world, r *Router) {
		put(t, r, "a", "3")
		put(t, r, "b", "1")
		put(t, r, "z", "2")
		req := all()
		req.KeysOnly, req.SortTarget, req.SortOrder = true, pb.RangeRequest_VALUE, pb.RangeRequest_ASCEND
		resp, err := r.Range(t.Context(), req)
		require.NoError(t, err)
		require.Equal(t, []string{"b", "z", "a"}, keysOf(resp))
	})
}

// A shard that splits between the lookup and the read costs a retry, no more.
func TestRangeOverASplit(t *testing.T) {
	for _, at := range []routerpb.Op{routerpb.Op_OP_PROBE, routerpb.Op_OP_FETCH} {
		t.Run(at.String(), func(t *testing.T) {
			inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
				put(t, r, "a", "1")
				put(t, r, "h", "2")
				put(t, r, "z", "3")
				split := false
				w.script = func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
					if req.Op == at && !split {
						split = true
						w.split("d")
					}
					return nil, nil, false
				}
				start := time.Now()
				resp, err := r.Range(t.Context(), all())
				require.NoError(t, err)
				require.Equal(t, []string{"a", "h", "z"}, keysOf(resp))
				require.Less(t, time.Since(start), 100*time.Millisecond)
			})
		})
	}
}

// A Close that meets a split closes both halves.
func TestCloseOverASplit(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		put(t, r, "a", "1")
		put(t, r, "h", "1")
		last := put(t, r, "z", "2")
		w.script = func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
			if req.Op == routerpb.Op_OP_WRITE && len(w.shards) == 2 {
				w.split("d")
			}
			return nil, nil, false
		}
		resp, err := r.Range(t.Context(), all())
		require.NoError(t, err)
		require.Equal(t, int64(last), resp.Header.Revision)
		require.Equal(t, []string{"a", "h", "z"}, keysOf(resp))
		for _, s := range w.shards {
			require.GreaterOrEqual(t, s.now().Floor, last)
		}
	})
}

// A Close whose outcome is unknown is sent again: a read is never unknown.
func TestRangeSurvivesALostClose(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		put(t, r, "a", "1")
		put(t, r, "z", "2")
		lost := false
		w.script = func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
			if req.Op == routerpb.Op_OP_WRITE && !lost {
				lost = true
				return nil, shard.ErrUnknownOutcome, true
			}
			return nil, nil, false
		}
		_, err := r.Range(t.Context(), all())
		require.NoError(t, err)
		require.True(t, lost)
	})
}

// A compaction between the cut and the read does not fail a read of the latest state.
func TestRangeOvertakenByACompaction(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		put(t, r, "z", "2")
		put(t, r, "a", "1")
		compacted := false
		w.script = func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
			if req.Op == routerpb.Op_OP_FETCH && !compacted {
				compacted = true
				s := w.owner("z")
				v := s.now()
				rev := v.Floor + 1<<8
				v.Rev, v.Floor, v.Compacted = rev, rev, rev
				s.append(v)
				s.applied[1] = len(s.history) - 1
			}
			return nil, nil, false
		}
		resp, err := r.Range(t.Context(), all())
		require.NoError(t, err)
		require.Len(t, resp.Kvs, 2)
		require.True(t, compacted)
	})
}

func TestRangeAtRevision(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, _ *world, r *Router) {
		first := put(t, r, "z", "1")
		second := put(t, r, "a", "2") // leaves the right shard behind
		read := func(req *pb.RangeRequest, at shard.Revision) *pb.RangeResponse {
			req.Revision = int64(at)
			resp, err := r.Range(t.Context(), req)
			require.NoError(t, err)
			return resp
		}
		require.Equal(t, []string{"z"}, keysOf(read(all(), first)))
		require.Equal(t, []string{"a", "z"}, keysOf(read(all(), second)))
		// One idle shard alone: closed on the way, never "future".
		require.Equal(t, []string{"z"}, keysOf(read(&pb.RangeRequest{Key: []byte("z")}, second)))

		_, err := r.Range(t.Context(), &pb.RangeRequest{Key: []byte("z"), Revision: int64(second) + 1})
		require.ErrorIs(t, err, shard.ErrFutureRevision)
		_, err = r.Compact(t.Context(), &pb.CompactionRequest{Revision: int64(second)})
		require.NoError(t, err)
		_, err = r.Range(t.Context(), &pb.RangeRequest{Key: []byte("a"), Revision: int64(first)})
		require.ErrorIs(t, err, shard.ErrCompacted)
	})
}

// A replica that does not get there costs a retry at another one.
func TestRangeAtRevisionOfAReplicaThatIsBehind(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		put(t, r, "a", "1")
		at := put(t, r, "z", "2")
		w.script = func(node shard.NodeID, req *Request) (*Reply, error, bool) {
			behind := node == 1 && req.At != 0
			return nil, &shard.NotClosedError{Shard: req.Shard, Floor: 1}, behind
		}
		for _, req := range []*pb.RangeRequest{{Key: []byte("a")}, all()} {
			req.Revision = int64(at)
			_, err := r.Range(t.Context(), req)
			require.NoError(t, err)
		}
	})
}

// Serializable reads take what is there: no barrier, no log write, no other node.
func TestSerializableRangeStaysLocal(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		put(t, r, "a", "1")
		put(t, r, "z", "2")
		w.locked(func() {
			for _, s := range w.shards {
				s.leader = 0 // no quorum
			}
			w.sent = nil
		})
		req := all()
		req.Serializable = true
		_, err := r.Range(t.Context(), req)
		require.NoError(t, err)
		for _, s := range w.sent {
			require.Equal(t, shard.NodeID(1), s.node)
			require.NotEqual(t, routerpb.Op_OP_WRITE, s.op)
		}
	})
}

// The caller's own deadline comes before anything the router has to say.
func TestDeadlines(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		w.script = func(shard.NodeID, *Request) (*Reply, error, bool) { return nil, shard.ErrUnavailable, true }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := r.Range(ctx, all())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = r.Put(ctx, &pb.PutRequest{Key: []byte("a")})
		require.ErrorIs(t, err, context.DeadlineExceeded)

		for _, f := range []func() error{
			func() error { _, err := r.Range(t.Context(), all()); return err },
			func() error { _, err := r.Put(t.Context(), &pb.PutRequest{Key: []byte("a")}); return err },
			func() error {
				return r.RangeStream(t.Context(), all(), func(*pb.RangeResponse) error { return nil })
			},
		} {
			start := time.Now()
			err = f()
			require.ErrorIs(t, err, shard.ErrUnavailable)
			require.ErrorIs(t, err, ErrRequestTimeout)
			require.NotErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, RequestTimeout, time.Since(start).Round(time.Millisecond))
		}
	})
}

// A stream looks at every key once or twice, however many chunks it takes, and is one
// cut whatever is written meanwhile.
func TestRangeStream(t *testing.T) {
	inWorld(t, []string{"g", "m", "t"}, func(t *testing.T, w *world, r *Router) {
		const n = 3000
		value := string(make([]byte, 10_000))
		for i := range n {
			put(t, r, fmt.Sprintf("%c%05d", 'a'+i%26, i), value)
		}
		for _, limit := range []int64{0, 7, 10, 11, 500, n, n + 1} {
			want, err := r.Range(t.Context(), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Limit: limit})
			require.NoError(t, err)
			w.locked(func() { w.examined = 0 })
			var parts []*pb.RangeResponse
			// Without an order the target says nothing.
			err = r.RangeStream(t.Context(), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Limit: limit, SortTarget: pb.RangeRequest_CREATE}, func(part *pb.RangeResponse) error {
				parts = append(parts, part)
				if limit == 0 {
					put(t, r, fmt.Sprintf("zz%d", len(parts)), "late")
				}
				return nil
			})
			require.NoError(t, err)
			got := &pb.RangeResponse{}
			for i, part := range parts {
				got.Kvs = append(got.Kvs, part.Kvs...)
				require.Equal(t, i == len(parts)-1, part.Header != nil)
				got.Header, got.Count, got.More = part.Header, part.Count, part.More
			}
			require.Equal(t, keysOf(want), keysOf(got), "limit %d", limit)
			require.Equal(t, want.Count, got.Count, "limit %d", limit)
			require.Equal(t, want.More, got.More, "limit %d", limit)
			require.Equal(t, want.Header, got.Header)
			require.LessOrEqual(t, w.examined, 2*n)
			if limit == 0 {
				require.Greater(t, len(parts), 20)
				for i := range parts {
					_, err := r.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: fmt.Appendf(nil, "zz%d", i+1)})
					require.NoError(t, err)
				}
			}
		}
	})
}

// However suddenly values grow, a chunk ends with the pair by which it comes to its size, and every list is read in pieces
// that nodes can send each other. The answers are the same.
func TestAnswersComeInPieces(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		const small, large = 300, 12
		value := string(make([]byte, 1<<20))
		size := map[string]int{}
		for i := range small + large {
			key, v := fmt.Sprintf("k/%03d", i), "v"
			if i >= small {
				v = value
			}
			put(t, r, key, v)
			size[key] = listing.PairBytes([]byte(key), []byte(v))
		}
		put(t, r, "z", "last")
		bounded := func(node shard.NodeID, req *Request) (*Reply, error, bool) {
			if req.Op == routerpb.Op_OP_RANGE {
				return nil, fmt.Errorf("here: %w", shard.ErrLargeAnswer), true
			}
			require.True(t, req.Op != routerpb.Op_OP_FETCH || req.Bytes > 0 && req.Bytes <= pieceBytes)
			return nil, nil, false
		}
		inOne := &pb.RangeRequest{Key: []byte("k/"), RangeEnd: []byte("k0")}
		for _, req := range []*pb.RangeRequest{
			all(), inOne,
			{Key: []byte{0}, RangeEnd: []byte{0}, Limit: small + 1}, {Key: []byte("k/"), RangeEnd: []byte("k0"), Limit: small + large - 1},
			{Key: []byte("k/"), RangeEnd: []byte("k0"), SortOrder: pb.RangeRequest_DESCEND, Limit: 3},
			{Key: []byte("k/"), RangeEnd: []byte("k0"), SortTarget: pb.RangeRequest_VALUE, SortOrder: pb.RangeRequest_DESCEND, KeysOnly: true},
		} {
			w.locked(func() { w.script = nil })
			want, err := r.Range(t.Context(), req)
			require.NoError(t, err)
			w.locked(func() { w.script = bounded })
			got, err := r.Range(t.Context(), req)
			require.NoError(t, err)
			require.True(t, proto.Equal(want, got), "%v", req)
		}
		for _, limit := range []int64{0, small, small + 1, small + large, small + large + 1} {
			keys, read, count, more := 0, 0, int64(0), false
			err := r.RangeStream(t.Context(), &pb.RangeRequest{Key: inOne.Key, RangeEnd: inOne.RangeEnd, Limit: limit}, func(part *pb.RangeResponse) error {
				for i, kv := range part.Kvs {
					require.Equal(t, fmt.Sprintf("k/%03d", keys), string(kv.Key))
					if keys++; i == 0 {
						read = 0
					}
					require.Less(t, read, streamChunkBytes)
					read += size[string(kv.Key)]
				}
				count, more = part.Count, part.More
				return nil
			})
			require.NoError(t, err)
			want := small + large
			if limit > 0 {
				want = min(want, int(limit))
			}
			require.Equal(t, []any{want, int64(small + large), want < small+large}, []any{keys, count, more}, "limit %d", limit)
		}
	})
}
