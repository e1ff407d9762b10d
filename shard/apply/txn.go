package apply

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// txn executes a plan, in which nothing can be refused any more. Ranges see what was written before
// them in the same transaction.
func (w *writing) txn(p *plan) (*pb.TxnResponse, error) {
	var resp *pb.TxnResponse
	if w.want {
		resp = &pb.TxnResponse{Succeeded: p.succeeded, Responses: make([]*pb.ResponseOp, 0, len(p.ops))}
	}
	nested := p.nested
	for _, op := range p.ops {
		var sub *plan
		if op.GetRequestTxn() != nil {
			sub, nested = nested[0], nested[1:]
		}
		out, err := w.op(op, sub)
		if err != nil {
			return nil, err
		}
		if w.want {
			resp.Responses = append(resp.Responses, out)
		}
	}
	return resp, nil
}

// op executes one operation. As in etcd, the header of each response has only the revision, and
// that of a nested transaction not even that.
func (w *writing) op(op *pb.RequestOp, sub *plan) (*pb.ResponseOp, error) {
	switch o := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		if !w.want {
			return nil, nil
		}
		f, err := w.w.Fetch(requestSpan(o.RequestRange), shard.Revision(o.RequestRange.GetRevision()), listing.OptionsFor(o.RequestRange))
		if err != nil {
			return nil, err
		}
		return rangeOp(o.RequestRange, f, w.now()), nil
	case *pb.RequestOp_RequestPut:
		resp, err := w.put(o.RequestPut)
		if err != nil || !w.want {
			return nil, err
		}
		resp.Header = headerAt(w.now())
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: resp}}, nil
	case *pb.RequestOp_RequestDeleteRange:
		resp, err := w.deleteRange(o.RequestDeleteRange)
		if err != nil || !w.want {
			return nil, err
		}
		resp.Header = headerAt(w.now())
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: resp}}, nil
	case *pb.RequestOp_RequestTxn:
		resp, err := w.txn(sub)
		if err != nil || !w.want {
			return nil, err
		}
		resp.Header = &pb.ResponseHeader{}
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: resp}}, nil
	default: // no operation at all
		return &pb.ResponseOp{}, nil
	}
}

// rangeOp answers a range inside a transaction. now is the transaction's revision, whatever
// revision the range requested.
func rangeOp(req *pb.RangeRequest, f listing.Fetched, now shard.Revision) *pb.ResponseOp {
	resp := listing.Respond(req, f)
	resp.Header = headerAt(now)
	return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: resp}}
}

func requestSpan(req *pb.RangeRequest) shard.Span {
	return shard.RequestSpan(req.GetKey(), req.GetRangeEnd())
}

func headerAt(rev shard.Revision) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: int64(rev)} }
