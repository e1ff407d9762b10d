package apply

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
)

// source is the state against which a request is validated: an mvcc.Writer that has written nothing
// of the command yet, or a snapshot.
type source interface {
	// Header returns the latest header and whether the key exists.
	Header(key []byte) (mvcc.Header, bool, error)
	// Get returns the latest version; nil if the key does not exist.
	Get(key []byte) (*mvccpb.KeyValue, error)
	// Fetch reads a span at a revision, 0 being the source's own.
	Fetch(span shard.Span, at shard.Revision, o listing.FetchOptions) (listing.Fetched, error)
}

// judge decides on the state before a request what the request will do, and refuses
// what it may not do. It writes nothing (A4).
type judge struct {
	source source
	view   shard.View
	leases leases
}

// put refuses a put that the state does not allow: the lease first, as in etcd.
func (j judge) put(req *pb.PutRequest) error {
	if len(req.GetKey()) == 0 {
		return malformed("put without a key")
	}
	if err := j.leases.mayAttach(req.Lease); err != nil {
		return err
	}
	if !req.IgnoreValue && !req.IgnoreLease {
		return nil
	}
	_, existed, err := j.source.Header(req.Key)
	if err != nil {
		return err
	}
	if !existed {
		return refuse(shard.ErrKeyNotFound)
	}
	return nil
}

// readable refuses a read at a revision whose history is gone or not final. Up to
// Floor everything is final, also above Rev: a shard that was idle meanwhile answers
// for it (R4).
func readable(at shard.Revision, v shard.View) error {
	switch {
	case at < v.Compacted:
		return refuse(shard.ErrCompacted)
	case at > v.Floor:
		return refuse(shard.ErrFutureRevision)
	}
	return nil
}

// rangeOp refuses a range inside a transaction by its explicit revision. A negative
// one is compacted there, as in etcd (which, before its first compaction, lets -1 pass).
func (j judge) rangeOp(req *pb.RangeRequest) error {
	if req.GetRevision() == 0 {
		return nil
	}
	return readable(shard.Revision(req.GetRevision()), j.view)
}

// plan is what a transaction will do: the branch its compares chose and, for each
// nested transaction of that branch in order, its plan.
type plan struct {
	succeeded bool
	ops       []*pb.RequestOp
	nested    []*plan
}

// plan evaluates every compare on the state before the transaction, those of nested
// transactions included, and checks the operations that will run, in order.
func (j judge) plan(req *pb.TxnRequest) (*plan, error) {
	p := &plan{succeeded: true, ops: req.GetSuccess()}
	for _, c := range req.GetCompare() {
		ok, err := j.compare(c)
		if err != nil {
			return nil, err
		}
		if !ok {
			p.succeeded, p.ops = false, req.GetFailure()
			break
		}
	}
	for _, op := range p.ops {
		var err error
		switch o := op.GetRequest().(type) {
		case *pb.RequestOp_RequestRange:
			err = j.rangeOp(o.RequestRange)
		case *pb.RequestOp_RequestPut:
			err = j.put(o.RequestPut)
		case *pb.RequestOp_RequestTxn:
			var n *plan
			n, err = j.plan(o.RequestTxn)
			p.nested = append(p.nested, n)
		}
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}
