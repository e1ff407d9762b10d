package listing

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

func TestFetchLimit(t *testing.T) {
	for _, c := range []struct {
		name string
		req  *pb.RangeRequest
		want int64
	}{
		{"no limit", &pb.RangeRequest{}, 0},
		{"a negative limit is none", &pb.RangeRequest{Limit: -1}, 0},
		{"one more tells whether there are more", &pb.RangeRequest{Limit: 3}, 4},
		{"no overflow", &pb.RangeRequest{Limit: math.MaxInt64}, math.MaxInt64},
		{"key order", &pb.RangeRequest{Limit: 3, SortOrder: pb.RangeRequest_ASCEND}, 4},
		{"reverse key order needs all", &pb.RangeRequest{Limit: 3, SortOrder: pb.RangeRequest_DESCEND}, 0},
		{"a target without an order is sorted after the cut", &pb.RangeRequest{Limit: 3, SortTarget: pb.RangeRequest_MOD}, 4},
		{"a target with an order needs all", &pb.RangeRequest{Limit: 3, SortTarget: pb.RangeRequest_MOD, SortOrder: pb.RangeRequest_ASCEND}, 0},
		{"a filter needs all", &pb.RangeRequest{Limit: 3, MinModRevision: 1}, 0},
	} {
		require.Equal(t, c.want, fetchLimit(c.req), c.name)
	}
}

func TestOptionsFor(t *testing.T) {
	byValue := &pb.RangeRequest{KeysOnly: true, SortTarget: pb.RangeRequest_VALUE}
	require.False(t, OptionsFor(byValue).KeysOnly, "sorting by value needs the values")
	require.True(t, OptionsFor(&pb.RangeRequest{KeysOnly: true}).KeysOnly)
	require.False(t, OptionsFor(&pb.RangeRequest{Limit: 1}).NoCount, "L2: a response counts the whole span")
}

func TestDone(t *testing.T) {
	require.True(t, FetchOptions{Limit: 2, NoCount: true}.Done(2))
	require.False(t, FetchOptions{Limit: 2, NoCount: true}.Done(1))
	require.False(t, FetchOptions{Limit: 2}.Done(2))
	require.False(t, FetchOptions{NoCount: true}.Done(2))
	require.False(t, FetchOptions{Limit: 2, NoCount: true, CountOnly: true}.Done(2))
}

// fetch is what a store that holds kvs gives.
func fetch(kvs []*mvccpb.KeyValue, o FetchOptions) Fetched {
	var f Fetched
	for _, kv := range kvs {
		if o.Done(len(f.KVs)) {
			break
		}
		f.Count++
		if o.CountOnly || o.Limit > 0 && int64(len(f.KVs)) >= o.Limit {
			continue
		}
		kv = proto.CloneOf(kv)
		if o.KeysOnly {
			kv.Value = nil
		}
		f.KVs = append(f.KVs, kv)
	}
	return f
}

// TestPartsAnswerLikeTheWhole cuts a span in two at every place (L1).
func TestPartsAnswerLikeTheWhole(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	var kvs []*mvccpb.KeyValue
	for i := range 12 {
		kvs = append(kvs, &mvccpb.KeyValue{
			Key: fmt.Appendf(nil, "key%02d", i), Value: fmt.Appendf(nil, "%d", rng.IntN(5)),
			CreateRevision: int64(rng.IntN(6)), ModRevision: int64(6 + rng.IntN(6)), Version: int64(1 + rng.IntN(4)),
		})
	}
	for range 2000 {
		req := &pb.RangeRequest{
			Limit: int64(rng.IntN(15) - 1), SortOrder: pb.RangeRequest_SortOrder(rng.IntN(3)), SortTarget: pb.RangeRequest_SortTarget(rng.IntN(5)),
			KeysOnly: rng.IntN(3) == 0, CountOnly: rng.IntN(6) == 0,
		}
		if rng.IntN(4) == 0 {
			req.MinModRevision, req.MaxCreateRevision = int64(rng.IntN(9)), int64(rng.IntN(6))
		}
		whole := Respond(req, fetch(kvs, OptionsFor(req)))
		require.Equal(t, int64(len(kvs)), whole.Count)
		for at := range len(kvs) + 1 {
			left, right := fetch(kvs[:at], OptionsFor(req)), fetch(kvs[at:], OptionsFor(req))
			got := Respond(req, Fetched{KVs: append(left.KVs, right.KVs...), Count: left.Count + right.Count})
			require.True(t, proto.Equal(whole, got), "%v cut at %d: %v, want %v", req, at, got, whole)
		}
	}
}
