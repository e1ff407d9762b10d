package client

import (
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/txn"
)

// kind is what an operation does.
type kind int

const (
	none kind = iota
	put
	get
	del
	transact
	watch // only to collect options
)

func kinds() []kind { return []kind{put, get, del, transact} }

func (k kind) String() string {
	switch k {
	case put:
		return "put"
	case get:
		return "get"
	case del:
		return "delete"
	case transact:
		return "txn"
	case watch:
		return "watch"
	default:
		return "nothing"
	}
}

// Op is one operation: what Put, Get, Delete and Txn return. It may be reused, but not changed.
type Op struct {
	kind kind
	put  *pb.PutRequest
	get  *pb.RangeRequest
	del  *pb.DeleteRangeRequest
	txn  *pb.TxnRequest
	at   time.Time // of a get, if it has one
	err  error     // why the operation is invalid

	previous bool // of a watch: events contain what they replaced
}

// shortKey is the length up to which keys need no allocation of their own.
const shortKey = 48

// Put writes a key. The value must not change until the operation has ended.
func Put(key string, value []byte, options ...Option) Op {
	p := &struct { // a single allocation
		req pb.PutRequest
		key [shortKey]byte
	}{}
	p.req.Key, p.req.Value = append(p.key[:0], key...), value
	return Op{kind: put, put: &p.req}.with(options)
}

// Get reads a key, or with WithRange and similar options all keys of a span, in key order.
func Get(key string, options ...Option) Op {
	g := &struct {
		req pb.RangeRequest
		key [shortKey]byte
	}{}
	g.req.Key = append(g.key[:0], key...)
	return Op{kind: get, get: &g.req}.with(options)
}

// Delete deletes a key, or all keys of a span.
func Delete(key string, options ...Option) Op {
	return Op{kind: del, del: &pb.DeleteRangeRequest{Key: []byte(key)}}.with(options)
}

// Txn carries out then if all compares hold, and otherwise orElse: atomically, at one revision. All
// its keys must lie in one shard.
func Txn(compares []Compare, then, orElse []Op) Op {
	o := Op{kind: transact, txn: &pb.TxnRequest{}}
	for _, c := range compares {
		o.txn.Compare = append(o.txn.Compare, c.proto)
	}
	o.txn.Success = o.branch(then)
	o.txn.Failure = o.branch(orElse)
	return o
}

// watchOp collects the options of a watch; its start is the get's revision.
func watchOp(key string, options []Option) Op {
	return Op{kind: watch, get: &pb.RangeRequest{Key: []byte(key)}}.with(options)
}

// span is the span of a get or watch.
func (o *Op) span() shard.Span { return shard.RequestSpan(o.get.Key, o.get.RangeEnd) }

// branch converts the operations of a transaction's branch.
func (o *Op) branch(ops []Op) []*pb.RequestOp {
	out := make([]*pb.RequestOp, len(ops))
	for i := range ops {
		in := &ops[i]
		out[i] = &pb.RequestOp{}
		switch in.kind {
		case put:
			out[i].Request = &pb.RequestOp_RequestPut{RequestPut: in.put}
		case get:
			out[i].Request = &pb.RequestOp_RequestRange{RequestRange: in.get}
		case del:
			out[i].Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: in.del}
		case transact:
			out[i].Request = &pb.RequestOp_RequestTxn{RequestTxn: in.txn}
		}
		err := in.err // of an Op that the caller may use again by itself
		if err == nil && !in.at.IsZero() {
			err = errors.New("a read at a time stands alone: a transaction reads at its own revision")
		}
		if err != nil && o.err == nil {
			o.err = fmt.Errorf("operation %d of the transaction: %w", i, err)
		}
	}
	return out
}

// check refuses what a node would refuse without reading the store.
func (o *Op) check() error {
	if o.err != nil {
		return o.err
	}
	switch o.kind {
	case put:
		return txn.CheckPut(o.put)
	case get:
		return txn.CheckRange(o.get)
	case del:
		return txn.CheckDeleteRange(o.del)
	case transact:
		return txn.CheckTxn(o.txn, txn.DefaultMaxOps)
	default:
		return errors.New("an Op that Put, Get, Delete or Txn did not make")
	}
}

// firstKey identifies the operation in errors and spans.
func (o *Op) firstKey() string {
	switch o.kind {
	case put:
		return string(o.put.Key)
	case get, watch:
		return string(o.get.Key)
	case del:
		return string(o.del.Key)
	case transact:
		for span := range txn.FootprintTxn(o.txn).Spans() {
			return string(span.Start)
		}
	}
	return ""
}

// Result is the result of an operation. Which fields are set depends on its kind.
type Result struct {
	// Revision is that of the write, or the one that was read.
	Revision int64
	// KVs are the keys that a get found.
	KVs []*mvccpb.KeyValue
	// Count is the number of keys in the span of a get, including those beyond its limit.
	Count int64
	// More reports whether there are keys beyond the limit.
	More bool
	// Deleted is the number of keys that a delete deleted.
	Deleted int64
	// Previous is what a put or delete replaced, if WithPrevious asked for it.
	Previous []*mvccpb.KeyValue
	// Succeeded reports whether the compares of a transaction held.
	Succeeded bool
	// Results are those of the operations of the branch that was executed.
	Results []Result
}

// KV is the only key of a get; nil if it was not found.
func (r Result) KV() *mvccpb.KeyValue {
	if len(r.KVs) == 0 {
		return nil
	}
	return r.KVs[0]
}

func putResult(r *pb.PutResponse) Result {
	out := Result{Revision: r.Header.GetRevision()}
	if r.PrevKv != nil {
		out.Previous = []*mvccpb.KeyValue{r.PrevKv}
	}
	return out
}

func getResult(r *pb.RangeResponse) Result {
	return Result{Revision: r.Header.GetRevision(), KVs: r.Kvs, Count: r.Count, More: r.More}
}

func deleteResult(r *pb.DeleteRangeResponse) Result {
	return Result{Revision: r.Header.GetRevision(), Deleted: r.Deleted, Previous: r.PrevKvs}
}

func txnResult(r *pb.TxnResponse) Result {
	out := Result{Revision: r.Header.GetRevision(), Succeeded: r.Succeeded}
	for _, op := range r.Responses {
		switch op := op.Response.(type) {
		case *pb.ResponseOp_ResponsePut:
			out.Results = append(out.Results, putResult(op.ResponsePut))
		case *pb.ResponseOp_ResponseRange:
			out.Results = append(out.Results, getResult(op.ResponseRange))
		case *pb.ResponseOp_ResponseDeleteRange:
			out.Results = append(out.Results, deleteResult(op.ResponseDeleteRange))
		case *pb.ResponseOp_ResponseTxn:
			out.Results = append(out.Results, txnResult(op.ResponseTxn))
		}
	}
	return out
}

// revisionAt is the largest revision that could have been assigned before a time: the revision at
// which to read the store as it was then.
func revisionAt(t time.Time) shard.Revision {
	return max(shard.TickAt(t).Revision(), shard.FirstRevision)
}
