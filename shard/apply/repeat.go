package apply

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/shard"
)

// checkRepeats refuses a plan that could write one key twice: a key has one version
// per revision. etcd's own check overlooks two such cases (a put and a delete "from
// key on"; a put and a delete in two nested transactions); they get the error that
// etcd gives the others. The rule looks at the request only, so that a transaction
// does not begin to fail when its keys begin to exist.
func (p *plan) checkRepeats() error {
	var r repeats
	if !r.addAll(p) {
		return refuse(rpctypes.ErrGRPCDuplicateKey)
	}
	return nil
}

// repeats collects what a plan writes, in order.
type repeats struct {
	puts map[string]struct{}
	dels []shard.Span
}

func (r *repeats) addAll(p *plan) bool {
	nested := p.nested
	for _, op := range p.ops {
		ok := true
		switch o := op.GetRequest().(type) {
		case *pb.RequestOp_RequestPut:
			ok = r.addPut(o.RequestPut.GetKey())
		case *pb.RequestOp_RequestDeleteRange:
			ok = r.addDelete(shard.RequestSpan(o.RequestDeleteRange.GetKey(), o.RequestDeleteRange.GetRangeEnd()))
		case *pb.RequestOp_RequestTxn:
			ok = r.addAll(nested[0])
			nested = nested[1:]
		}
		if !ok {
			return false
		}
	}
	return true
}

func (r *repeats) addPut(key []byte) bool {
	if _, twice := r.puts[string(key)]; twice {
		return false
	}
	if slices.ContainsFunc(r.dels, func(s shard.Span) bool { return s.Contains(key) }) {
		return false
	}
	if r.puts == nil {
		r.puts = make(map[string]struct{})
	}
	r.puts[string(key)] = struct{}{}
	return true
}

// addDelete lets deletes overlap: the second finds nothing left.
func (r *repeats) addDelete(s shard.Span) bool {
	for key := range r.puts {
		if s.Contains([]byte(key)) {
			return false
		}
	}
	r.dels = append(r.dels, s)
	return true
}
