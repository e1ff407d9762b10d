package txn

import (
	"iter"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// Footprint is the set of keys a transaction could touch (T2), in request order and not merged. A
// span may be in both lists. Spans alias the request's keys.
//
// A footprint may be empty (a transaction of nothing, or of empty ranges): any shard can answer
// such a transaction.
type Footprint struct {
	// Reads are keys whose contents affect the outcome or the response.
	Reads []shard.Span
	// Writes are keys that may be put or deleted.
	Writes []shard.Span
}

// FootprintTxn returns what a transaction touches in any branch, nested ones
// included. Call it after CheckTxn, which bounds the nesting (T3).
func FootprintTxn(r *pb.TxnRequest) Footprint {
	var f Footprint
	f.addTxn(r)
	return f
}

// Spans iterates over the writes, then the reads.
func (f Footprint) Spans() iter.Seq[shard.Span] {
	return func(yield func(shard.Span) bool) {
		for _, list := range [][]shard.Span{f.Writes, f.Reads} {
			for _, s := range list {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// Within reports whether span holds every key of the footprint.
func (f Footprint) Within(span shard.Span) bool {
	for s := range f.Spans() {
		if !span.ContainsSpan(s) {
			return false
		}
	}
	return true
}

func (f *Footprint) addRange(r *pb.RangeRequest) {
	f.Reads = appendSpan(f.Reads, shard.RequestSpan(r.GetKey(), r.GetRangeEnd()))
}

func (f *Footprint) addPut(r *pb.PutRequest) {
	point := shard.PointSpan(r.GetKey())
	f.Writes = append(f.Writes, point)
	if r.GetPrevKv() || r.GetIgnoreValue() || r.GetIgnoreLease() {
		f.Reads = append(f.Reads, point)
	}
}

func (f *Footprint) addDeleteRange(r *pb.DeleteRangeRequest) {
	span := shard.RequestSpan(r.GetKey(), r.GetRangeEnd())
	f.Writes = appendSpan(f.Writes, span)
	if r.GetPrevKv() {
		f.Reads = appendSpan(f.Reads, span)
	}
}

func (f *Footprint) addTxn(r *pb.TxnRequest) {
	for _, c := range r.GetCompare() {
		f.Reads = appendSpan(f.Reads, shard.RequestSpan(c.GetKey(), c.GetRangeEnd()))
	}
	for _, branch := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range branch {
			switch o := op.GetRequest().(type) {
			case *pb.RequestOp_RequestRange:
				f.addRange(o.RequestRange)
			case *pb.RequestOp_RequestPut:
				f.addPut(o.RequestPut)
			case *pb.RequestOp_RequestDeleteRange:
				f.addDeleteRange(o.RequestDeleteRange)
			case *pb.RequestOp_RequestTxn:
				f.addTxn(o.RequestTxn)
			}
		}
	}
}

func appendSpan(list []shard.Span, s shard.Span) []shard.Span {
	if s.Empty() {
		return list
	}
	return append(list, s)
}
