package listing

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// fetchLimit is how many keys, in key order, must be fetched to answer the request;
// 0 means all. It is one more than asked for, which tells whether there are more.
// With a revision filter or an explicit order everything is needed. Without an
// explicit order it is not, even if the target is not the key: then, as in etcd, the
// first keys in key order are fetched and only those are sorted.
func fetchLimit(req *pb.RangeRequest) int64 {
	keyOrder := req.SortOrder == pb.RangeRequest_NONE ||
		req.SortTarget == pb.RangeRequest_KEY && req.SortOrder == pb.RangeRequest_ASCEND
	if req.Limit <= 0 || !keyOrder || hasRevisionFilter(req) {
		return 0
	}
	if req.Limit == math.MaxInt64 {
		return req.Limit
	}
	return req.Limit + 1
}

// IsGet reports whether the request is for the latest version of one key, whole.
func IsGet(req *pb.RangeRequest) bool {
	return len(req.RangeEnd) == 0 && req.Revision <= 0 && !req.KeysOnly && !req.CountOnly && !hasRevisionFilter(req)
}

// OptionsFor is what to fetch, in each shard, to answer the request.
func OptionsFor(req *pb.RangeRequest) FetchOptions {
	return FetchOptions{
		Limit:     fetchLimit(req),
		KeysOnly:  req.KeysOnly && req.SortTarget != pb.RangeRequest_VALUE,
		CountOnly: req.CountOnly,
	}
}

// Respond turns fetched keys into etcd's answer: filters, sorts, cuts to the limit.
// It sets no header. f may be one shard's fetch or several in key order, one after
// the other; its KVs are used up.
func Respond(req *pb.RangeRequest, f Fetched) *pb.RangeResponse {
	kvs := f.KVs
	if n := fetchLimit(req); n > 0 && int64(len(kvs)) > n {
		kvs = kvs[:n] // each of several shards fetched that many
	}
	kvs = filter(req, kvs)
	order(req, kvs)
	resp := &pb.RangeResponse{Count: f.Count}
	if req.Limit > 0 && int64(len(kvs)) > req.Limit {
		kvs = kvs[:req.Limit]
		resp.More = true
	}
	if req.KeysOnly {
		for _, kv := range kvs {
			kv.Value = nil
		}
	}
	resp.Kvs = kvs
	return resp
}

func hasRevisionFilter(req *pb.RangeRequest) bool {
	return req.MinModRevision != 0 || req.MaxModRevision != 0 ||
		req.MinCreateRevision != 0 || req.MaxCreateRevision != 0
}

func filter(req *pb.RangeRequest, kvs []*mvccpb.KeyValue) []*mvccpb.KeyValue {
	if !hasRevisionFilter(req) {
		return kvs
	}
	outside := func(rev, lowest, highest int64) bool {
		return lowest != 0 && rev < lowest || highest != 0 && rev > highest
	}
	return slices.DeleteFunc(kvs, func(kv *mvccpb.KeyValue) bool {
		return outside(kv.ModRevision, req.MinModRevision, req.MaxModRevision) ||
			outside(kv.CreateRevision, req.MinCreateRevision, req.MaxCreateRevision)
	})
}

// order sorts by the target; no order means ascending. Equal keys of the target stay
// in key order (etcd leaves that open). kvs come in key order.
func order(req *pb.RangeRequest, kvs []*mvccpb.KeyValue) {
	var compare func(a, b *mvccpb.KeyValue) int
	switch req.SortTarget {
	case pb.RangeRequest_VERSION:
		compare = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.Version, b.Version) }
	case pb.RangeRequest_CREATE:
		compare = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) }
	case pb.RangeRequest_MOD:
		compare = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) }
	case pb.RangeRequest_VALUE:
		compare = func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Value, b.Value) }
	default:
		if req.SortOrder == pb.RangeRequest_DESCEND {
			slices.Reverse(kvs)
		}
		return
	}
	if req.SortOrder == pb.RangeRequest_DESCEND {
		ascending := compare
		compare = func(a, b *mvccpb.KeyValue) int { return ascending(b, a) }
	}
	slices.SortStableFunc(kvs, compare)
}
