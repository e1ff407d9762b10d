package router

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
	"github.com/flotilla-kv/flotilla/txn"
)

// failing answers the n-th write of a kind, counted from 1, and all later ones, with
// err.
func failing(kind shardpb.Kind, n int, err error) func(shard.NodeID, *Request) (*Reply, error, bool) {
	return func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
		if req.Op == routerpb.Op_OP_WRITE && req.Command.Kind == kind {
			n--
		}
		return nil, err, n <= 0 && req.Op == routerpb.Op_OP_WRITE && req.Command.Kind == kind
	}
}

func TestPutIsNotSentAgainWhenUnknown(t *testing.T) {
	for _, err := range []error{shard.ErrUnknownOutcome, errors.New("the reply does not decode")} {
		inWorld(t, nil, func(t *testing.T, w *world, r *Router) {
			w.script = failing(shardpb.Kind_PUT, 1, err)
			_, got := r.Put(t.Context(), &pb.PutRequest{Key: []byte("a")})
			require.ErrorIs(t, got, shard.ErrUnknownOutcome)
			require.ErrorIs(t, got, err)
			require.Equal(t, 1, w.count(routerpb.Op_OP_WRITE, shardpb.Kind_PUT))
		})
	}
}

func TestPutRefusedIsNotSentAgain(t *testing.T) {
	for _, err := range []error{shard.ErrNoSpace, shard.ErrKeyNotFound, shard.ErrLeaseNotFound} {
		inWorld(t, nil, func(t *testing.T, w *world, r *Router) {
			w.script = failing(shardpb.Kind_PUT, 1, err)
			_, got := r.Put(t.Context(), &pb.PutRequest{Key: []byte("a")})
			require.ErrorIs(t, got, err)
			require.NotErrorIs(t, got, shard.ErrUnknownOutcome)
			require.Equal(t, 1, w.count(routerpb.Op_OP_WRITE, shardpb.Kind_PUT))
		})
	}
}

// A shard that has too much to do is asked again, more and more rarely, and at last the
// request has certainly failed.
func TestTooMuchToDoIsAskedAgain(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world, r *Router) {
		busy := failing(shardpb.Kind_PUT, 1, shard.ErrOverloaded)
		left := 3
		w.script = func(node shard.NodeID, req *Request) (*Reply, error, bool) {
			if left--; left < 0 {
				return nil, nil, false
			}
			return busy(node, req)
		}
		put(t, r, "a", "1")
		w.script = busy
		w.locked(func() { w.sent = nil })
		_, err := r.Put(t.Context(), &pb.PutRequest{Key: []byte("a")})
		require.ErrorIs(t, err, shard.ErrOverloaded)
		require.NotErrorIs(t, err, shard.ErrUnknownOutcome)
		require.InDelta(t, RequestTimeout/backoffMax, w.count(routerpb.Op_OP_WRITE, shardpb.Kind_PUT), 25)
	})
}

// silent is a sender to shards that never answer certain writes.
type silent struct {
	Sender
	kinds []shardpb.Kind
	held  atomic.Int64
}

// Send implements Sender.
func (s *silent) Send(ctx context.Context, node shard.NodeID, req *Request) (*Reply, error) {
	if req.Op != routerpb.Op_OP_WRITE || !slices.Contains(s.kinds, req.Command.Kind) {
		return s.Sender.Send(ctx, node, req)
	}
	s.held.Add(1)
	select {
	case <-ctx.Done():
	case <-req.GiveUp:
	}
	return nil, shard.ErrUnknownOutcome
}

// T8: a shard that does not answer is sent no more than its lane lets through. Reads, closes,
// renewals and what ends leases do not wait behind the rest.
func TestWritesWaitForTheirTurn(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		rev := put(t, r, "z", "1")
		put(t, r, "a", "1")
		lease, err := r.Grant(t.Context(), &pb.LeaseGrantRequest{TTL: 60})
		require.NoError(t, err)
		stuck := &silent{Sender: r.cfg.Sender, kinds: []shardpb.Kind{shardpb.Kind_PUT, shardpb.Kind_DELETE_RANGE, shardpb.Kind_TXN}}
		r.cfg.Sender = stuck
		const clients = 999
		wrote := make(chan error, 2*clients)
		for i := range 2 * clients {
			go func() {
				var err error
				key := []byte{"az"[i%2]}
				switch i % 3 {
				case 0:
					_, err = r.Put(t.Context(), &pb.PutRequest{Key: key})
				case 1:
					_, err = r.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: key})
				case 2:
					_, err = r.Txn(t.Context(), putBoth(string(key), string(key)+"b"))
				}
				wrote <- err
			}()
		}
		synctest.Wait()
		held := stuck.held.Load()
		require.Less(t, held, int64(clients))

		_, err = r.Range(t.Context(), all())
		require.NoError(t, err)
		require.NoError(t, r.closeSpan(t.Context(), shard.Everything(), rev))
		ttls, _, err := r.KeepAlive(t.Context(), []int64{lease.ID})
		require.NoError(t, err)
		require.Positive(t, ttls[0])
		_, err = r.Revoke(t.Context(), &pb.LeaseRevokeRequest{ID: lease.ID})
		require.NoError(t, err)

		unknown := int64(0)
		for range 2 * clients {
			if err := <-wrote; errors.Is(err, shard.ErrUnknownOutcome) {
				unknown++
			} else {
				require.ErrorIs(t, err, shard.ErrOverloaded)
			}
		}
		require.Equal(t, stuck.held.Load(), unknown, "whatever was not sent has certainly failed")
	})
}

// A router learns where the leader is and goes there from then on.
func TestPutFindsTheLeader(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world, r *Router) {
		w.owner("a").leader = 3
		put(t, r, "a", "1")
		w.locked(func() { w.sent = nil })
		put(t, r, "a", "2")
		require.Equal(t, []sentRequest{{node: 3, shard: 2, op: routerpb.Op_OP_WRITE, kind: shardpb.Kind_PUT}}, w.sent)
		w.locked(func() { w.owner("a").leader = 2 })
		put(t, r, "a", "3")
	})
}

func TestDeleteRangeOverShards(t *testing.T) {
	inWorld(t, []string{"g", "m", "t"}, func(t *testing.T, w *world, r *Router) {
		for _, key := range []string{"a", "h", "n", "u"} {
			put(t, r, key, key)
		}
		w.locked(func() { w.split("j") }) // the router does not know
		resp, err := r.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: []byte("b"), RangeEnd: []byte{0}, PrevKv: true})
		require.NoError(t, err)
		require.Equal(t, int64(3), resp.Deleted)
		require.Len(t, resp.PrevKvs, 3)
		got, err := r.Range(t.Context(), all())
		require.NoError(t, err)
		require.Equal(t, []string{"a"}, keysOf(got))
		require.Equal(t, resp.Header.Revision, got.Header.Revision)

		// An empty range deletes nothing and still has a revision.
		resp, err = r.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: []byte("x"), RangeEnd: []byte("b")})
		require.NoError(t, err)
		require.Zero(t, resp.Deleted)
		require.Positive(t, resp.Header.Revision)
	})
}

// Once a shard has deleted its part, an error is no "no" any more.
func TestDeleteRangeHalfDone(t *testing.T) {
	for _, err := range []error{shard.ErrUnavailable, shard.ErrCorrupt, shard.ErrOverloaded} {
		inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
			put(t, r, "z", "1")
			w.script = failing(shardpb.Kind_DELETE_RANGE, 2, err)
			_, got := r.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte{0}})
			require.ErrorIs(t, got, err)
			require.NotErrorIs(t, got, shard.ErrUnknownOutcome, "nothing was deleted")

			put(t, r, "a", "1")
			w.script = failing(shardpb.Kind_DELETE_RANGE, 2, err)
			_, got = r.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte{0}})
			require.ErrorIs(t, got, err)
			require.ErrorIs(t, got, shard.ErrUnknownOutcome)
		})
	}
}

// What may be refused for want of room is only a delete of which nothing was applied.
func TestDeleteRangeThatHasBegunIsNotRefused(t *testing.T) {
	inWorld(t, []string{"g", "m", "t"}, func(t *testing.T, w *world, r *Router) {
		for _, key := range []string{"h", "n", "u"} {
			put(t, r, key, key)
		}
		var refusable []bool
		w.script = func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
			if req.Op == routerpb.Op_OP_WRITE && req.Command.Kind == shardpb.Kind_DELETE_RANGE {
				refusable = append(refusable, req.Refusable())
			}
			return nil, nil, false
		}
		resp, err := r.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte{0}, PrevKv: true})
		require.NoError(t, err)
		require.Len(t, resp.PrevKvs, 3)
		require.Equal(t, []bool{true, true, false, false}, refusable, "the first shard had no such keys")
		_, err = r.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte{0}})
		require.NoError(t, err)
		require.Equal(t, []bool{false, false, false, false}, refusable[4:], "without values the answers are small")
	})
}

func putBoth(a, b string) *pb.TxnRequest {
	req := &pb.TxnRequest{}
	for _, key := range []string{a, b} {
		req.Success = append(req.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}})
	}
	return req
}

// STM reads in serializable transactions at the revision of its first read, which the next
// replica may not have come to.
func TestSerializableTxnAtARevisionOfAReplicaThatIsBehind(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world, r *Router) {
		rev := put(t, r, "a", "1")
		w.script = func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
			return nil, shard.ErrFutureRevision, req.Op == routerpb.Op_OP_TXN && req.Serializable
		}
		resp, err := r.Txn(t.Context(), &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{
			RequestRange: &pb.RangeRequest{Key: []byte("a"), Revision: int64(rev), Serializable: true}}}}})
		require.NoError(t, err)
		require.Len(t, resp.Responses[0].GetResponseRange().Kvs, 1)
	})
}

func TestTxnCrossShard(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		_, err := r.Txn(t.Context(), putBoth("a", "b"))
		require.NoError(t, err)
		_, err = r.Txn(t.Context(), putBoth("a", "z"))
		var cross *txn.CrossShardError
		require.ErrorAs(t, err, &cross)
		require.Equal(t, []shard.ID{2}, cross.Places[0].Shards)
		require.Equal(t, []shard.ID{3}, cross.Places[1].Shards)
		require.Equal(t, 1, w.count(routerpb.Op_OP_WRITE, shardpb.Kind_TXN))
		require.Empty(t, w.cut(shard.PointSpan([]byte("z")), 1<<60))
	})
}

// A map that does not know of a merge may cost a retry, not a refusal (T2).
func TestTxnAfterAMerge(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		put(t, r, "a", "1")
		put(t, r, "z", "1")
		w.locked(func() { w.merge("a") })
		_, err := r.Txn(t.Context(), putBoth("a", "z"))
		require.NoError(t, err)
	})
}

// A merge that another request hears of while a refusal is being confirmed: all keys are in one shard by then, so
// there is nothing to refuse.
func TestTxnDuringAMerge(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		put(t, r, "a", "1")
		put(t, r, "z", "1")
		w.script = func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
			if req.Op != routerpb.Op_OP_PROBE {
				return nil, nil, false
			}
			w.script = nil
			v := w.owner("a").now()
			w.merge("a")
			r.cfg.Cache.Learn(w.owner("a").now().Descriptor)
			return &Reply{Rev: v.Rev, Floor: v.Floor}, nil, true
		}
		_, err := r.Txn(t.Context(), putBoth("a", "z"))
		require.NoError(t, err)
	})
}

func TestReadTxn(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		get := func(key string, at shard.Revision) *pb.RequestOp {
			return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key), Revision: int64(at)}}}
		}
		rev := put(t, r, "a", "1")
		resp, err := r.Txn(t.Context(), &pb.TxnRequest{Success: []*pb.RequestOp{get("a", 0), get("b", 0)}})
		require.NoError(t, err)
		require.Equal(t, int64(rev), resp.Header.Revision)
		require.Len(t, resp.Responses, 2)
		require.Zero(t, w.count(routerpb.Op_OP_WRITE, shardpb.Kind_TXN))

		// An idle shard is closed to the revision of another one before it is read there.
		other := put(t, r, "z", "2")
		_, err = r.Txn(t.Context(), &pb.TxnRequest{Success: []*pb.RequestOp{get("a", other)}})
		require.NoError(t, err)
		require.Equal(t, 1, w.count(routerpb.Op_OP_WRITE, shardpb.Kind_CLOSE))

		_, err = r.Txn(t.Context(), &pb.TxnRequest{})
		require.NoError(t, err)
	})
}

func TestCompact(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		rev := put(t, r, "a", "1")
		// The shard splits when its half is told, and an answer is lost.
		told := 0
		w.script = func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
			if req.Op != routerpb.Op_OP_WRITE {
				return nil, nil, false
			}
			told++
			if told == 1 {
				w.split("g")
			}
			if told == 2 {
				return nil, shard.ErrUnknownOutcome, true
			}
			return nil, nil, false
		}
		_, err := r.Compact(t.Context(), &pb.CompactionRequest{Revision: int64(rev)})
		require.NoError(t, err)
		require.Len(t, w.shards, 3)
		for _, s := range w.shards {
			require.Equal(t, rev, s.now().Compacted)
		}
		_, err = r.Compact(t.Context(), &pb.CompactionRequest{Revision: int64(rev)})
		require.ErrorIs(t, err, shard.ErrCompacted)
		_, err = r.Compact(t.Context(), &pb.CompactionRequest{Revision: int64(rev) + 1})
		require.ErrorIs(t, err, shard.ErrFutureRevision)

		// Recorded, but a shard cannot be told.
		next := put(t, r, "a", "2")
		w.script = failing(shardpb.Kind_COMPACT, 1, shard.ErrUnavailable)
		_, err = r.Compact(t.Context(), &pb.CompactionRequest{Revision: int64(next)})
		require.ErrorIs(t, err, shard.ErrUnknownOutcome)
	})
}

// A read of keys that nobody writes to returns a revision that the next compaction leaves alone, and one at that
// revision is answered without anything being written.
func TestCompactRenewsIdleShards(t *testing.T) {
	inWorld(t, []string{"g", "m"}, func(t *testing.T, w *world, r *Router) {
		first := put(t, r, "a", "1")
		put(t, r, "h", "1")
		revisionOf := func(key, end string, at shard.Revision) shard.Revision {
			resp, err := r.Range(t.Context(), &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end), Revision: int64(at)})
			require.NoError(t, err)
			return shard.Revision(resp.Header.Revision)
		}
		require.Equal(t, first, revisionOf("a", "", 0))
		last := put(t, r, "x", "1")
		compact := func(rev shard.Revision) {
			_, err := r.Compact(t.Context(), &pb.CompactionRequest{Revision: int64(rev)})
			require.NoError(t, err)
		}
		compact(first)
		closes := w.count(routerpb.Op_OP_WRITE, shardpb.Kind_CLOSE)
		for _, span := range [][2]string{{"a", ""}, {"h", ""}, {"a", "z"}, {"x", ""}} {
			require.Equal(t, last, revisionOf(span[0], span[1], 0), "%q", span)
			require.Equal(t, last, revisionOf(span[0], span[1], last), "%q", span)
			require.Equal(t, last, revisionOf(span[0], span[1], first), "%q", span)
		}
		require.Equal(t, closes, w.count(routerpb.Op_OP_WRITE, shardpb.Kind_CLOSE), "all shards are closed to what they return")
		next := put(t, r, "x", "2")
		compact(last)
		require.Equal(t, next, revisionOf("a", "", 0))
		require.Equal(t, next, revisionOf("a", "", last), "the compaction leaves it readable")
	})
}
