package conformance

import (
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Corpus is every script in the order they must run: what depends on a store that
// was never compacted comes first.
func Corpus() []Script {
	var all []Script
	for _, group := range [][]*story{
		freshStories(), putStories(), rangeStories(), deleteStories(),
		compareStories(), txnStories(), nestedStories(), limitStories(), compactStories(), leaseStories(), authStories(),
	} {
		all = append(all, scriptsOf(group)...)
	}
	return all
}

func scriptsOf(stories []*story) (scripts []Script) {
	for _, s := range stories {
		scripts = append(scripts, s.script)
	}
	return scripts
}

// freshStories show what a store says before its first compaction.
func freshStories() []*story {
	s := newStory("fresh/never_compacted")
	s.see("an empty store")
	s.do("nothing deleted, nothing happened", &pb.DeleteRangeRequest{Key: zero(), RangeEnd: zero()})
	s.do("an empty transaction succeeds and is no write", &pb.TxnRequest{})
	a := s.put("a", "1")
	s.do("outside a transaction, a negative revision means now", get("a", func(r *pb.RangeRequest) { r.Revision = -1 }))
	s.do("inside one, -1 is not yet compacted here", txn(nil, ops(rangeOp(get("a", func(r *pb.RangeRequest) { r.Revision = -1 }))), nil))
	s.do("but -2 is", txn(nil, ops(rangeOp(get("a", func(r *pb.RangeRequest) { r.Revision = -2 }))), nil))
	s.do("the store before its first write", span("a", "z", func(r *pb.RangeRequest) { r.Revision = base.Rev() }))
	s.do("compacting below everything", &pb.CompactionRequest{Revision: -1})
	s.do("compacting at 0 is possible once", &pb.CompactionRequest{Revision: 0})
	s.do("", &pb.CompactionRequest{Revision: 0})
	s.do("now -1 is compacted inside a transaction", txn(nil, ops(rangeOp(get("a", func(r *pb.RangeRequest) { r.Revision = -1 }))), nil))
	s.do("and still means now outside", get("a", func(r *pb.RangeRequest) { r.Revision = -1 }))
	s.do("", get("a", func(r *pb.RangeRequest) { r.Revision = a.Rev() }))
	return []*story{s}
}

// The helpers below keep the scripts to one line a step.

func get(key string, with ...func(*pb.RangeRequest)) *pb.RangeRequest {
	r := &pb.RangeRequest{Key: []byte(key)}
	for _, w := range with {
		w(r)
	}
	return r
}

func span(key, end string, with ...func(*pb.RangeRequest)) *pb.RangeRequest {
	r := get(key, with...)
	r.RangeEnd = []byte(end)
	return r
}

func put(key, value string, with ...func(*pb.PutRequest)) *pb.PutRequest {
	r := &pb.PutRequest{Key: []byte(key), Value: []byte(value)}
	for _, w := range with {
		w(r)
	}
	return r
}

func del(key, end string) *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}
}

func txn(compares []*pb.Compare, success, failure []*pb.RequestOp) *pb.TxnRequest {
	return &pb.TxnRequest{Compare: compares, Success: success, Failure: failure}
}

func ops(o ...*pb.RequestOp) []*pb.RequestOp  { return o }
func compares(c ...*pb.Compare) []*pb.Compare { return c }
func repeat[T any](n int, of func(i int) T) (all []T) {
	for i := range n {
		all = append(all, of(i))
	}
	return all
}

func rangeOp(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func putOp(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func delOp(r *pb.DeleteRangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
}

func txnOp(r *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
}

// version compares a key's version; version 0 says that it does not exist.
func version(key string, result pb.Compare_CompareResult, v int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_VERSION, Result: result,
		TargetUnion: &pb.Compare_Version{Version: v}}
}

// exists holds if the key does, missing if it does not.
func exists(key string) *pb.Compare  { return version(key, pb.Compare_GREATER, 0) }
func missing(key string) *pb.Compare { return version(key, pb.Compare_EQUAL, 0) }

// never is a revision above everything a store could have reached.
const never = math.MaxInt64
