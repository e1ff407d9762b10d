package router

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

func hashOf(w *world, at shard.Revision) uint32 {
	var sum uint64
	for _, kv := range w.cut(shard.Everything(), at) {
		sum += sumOf(kv)
	}
	return uint32(sum ^ sum>>32)
}

// The hash is of one cut, whatever the shards and whatever happens to them meanwhile.
func TestHashKV(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		put(t, r, "z", "1")
		first := put(t, r, "a", "2")
		second := put(t, r, "b", "3") // the right shard is behind
		put(t, r, "b", "4")
		latest := put(t, r, "a", "5")
		hash := func(at shard.Revision) (*pb.HashKVResponse, error) {
			return r.HashKV(t.Context(), &pb.HashKVRequest{Revision: int64(at)})
		}
		before := func(compacted int64) {
			t.Helper()
			nothing, err := hash(-7)
			require.NoError(t, err)
			require.Equal(t, hashOf(w, 0), nothing.Hash, "as etcd has it: nothing was there")
			require.Equal(t, int64(-7), nothing.HashRevision)
			require.Equal(t, compacted, nothing.CompactRevision)
			require.Equal(t, int64(latest), nothing.Header.Revision)
		}
		before(-1)
		resp, err := hash(0)
		require.NoError(t, err)
		require.Equal(t, int64(latest), resp.HashRevision)
		require.Equal(t, int64(latest), resp.Header.Revision)
		require.Equal(t, int64(-1), resp.CompactRevision)
		require.Equal(t, hashOf(w, latest), resp.Hash)

		split := false
		w.script = func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
			if req.Op == routerpb.Op_OP_HASH && !split {
				split = true
				w.split("b")
				w.merge("m")
			}
			return nil, nil, false
		}
		resp, err = hash(second)
		require.NoError(t, err)
		require.True(t, split)
		require.Equal(t, int64(second), resp.HashRevision)
		require.Equal(t, hashOf(w, second), resp.Hash)
		require.NotEqual(t, hashOf(w, latest), resp.Hash)
		w.script = nil

		_, err = r.Compact(t.Context(), &pb.CompactionRequest{Revision: int64(second)})
		require.NoError(t, err)
		_, err = hash(first)
		require.ErrorIs(t, err, shard.ErrCompacted)
		again, err := hash(second)
		require.NoError(t, err)
		require.Equal(t, resp.Hash, again.Hash)
		require.Equal(t, int64(second), again.CompactRevision)
		before(int64(second))
		_, err = hash(latest + 1)
		require.ErrorIs(t, err, shard.ErrFutureRevision)
	})
}

// A node answers from its own replicas, even when others would be faster: what they have
// says nothing about it.
func TestHashKVAsksTheOwnReplica(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		put(t, r, "a", "1")
		asked, own := 0, r.cfg.Self
		w.script = func(node shard.NodeID, req *Request) (*Reply, error, bool) {
			if req.Op != routerpb.Op_OP_HASH {
				return nil, nil, false
			}
			require.Equal(t, own, node)
			if asked++; asked < 5 {
				return nil, shard.ErrUnavailable, true
			}
			return nil, nil, false
		}
		_, err := r.HashKV(t.Context(), &pb.HashKVRequest{})
		require.NoError(t, err)
		require.GreaterOrEqual(t, asked, 6)
	})
}

// A compaction that overtakes the hash of the latest state makes it begin anew.
func TestHashKVOvertakenByACompaction(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		put(t, r, "z", "1")
		old := put(t, r, "a", "2")
		overtaken := 0
		w.script = func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
			if req.Op == routerpb.Op_OP_HASH && overtaken == 0 {
				overtaken++
				return nil, shard.ErrCompacted, true
			}
			return nil, nil, false
		}
		_, err := r.HashKV(t.Context(), &pb.HashKVRequest{})
		require.NoError(t, err)
		overtaken = 0
		_, err = r.HashKV(t.Context(), &pb.HashKVRequest{Revision: int64(old)})
		require.ErrorIs(t, err, shard.ErrCompacted)
	})
}

// A physical compaction waits for the node's own replicas, for as long as its caller.
func TestCompactPhysical(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		rev := put(t, r, "a", "1")
		var asked []shard.Revision
		w.collected = func(ctx context.Context, rev shard.Revision) error {
			asked = append(asked, rev)
			_, bounded := ctx.Deadline()
			require.False(t, bounded, "its time is the caller's")
			return nil
		}
		_, err := r.Compact(t.Context(), &pb.CompactionRequest{Revision: int64(rev)})
		require.NoError(t, err)
		require.Empty(t, asked)
		rev = put(t, r, "a", "2")
		_, err = r.Compact(t.Context(), &pb.CompactionRequest{Revision: int64(rev), Physical: true})
		require.NoError(t, err)
		require.Equal(t, []shard.Revision{rev}, asked)

		rev = put(t, r, "a", "3")
		w.collected = func(context.Context, shard.Revision) error { return errors.New("too slow") }
		_, err = r.Compact(t.Context(), &pb.CompactionRequest{Revision: int64(rev), Physical: true})
		require.ErrorIs(t, err, shard.ErrUnknownOutcome, "it is compacted, though not removed")
		for _, s := range w.shards {
			require.Equal(t, rev, s.now().Compacted)
		}
	})
}
