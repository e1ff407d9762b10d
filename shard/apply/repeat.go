package apply

import (
	"bytes"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/shard"
)

// checkRepeats refuses a plan that could write one key twice, because a key has one version per
// revision. etcd's own check overlooks two such cases (a put and a delete "from key on"; a put and
// a delete in two nested transactions); they get the error that etcd gives in the other cases. The
// rule looks at the request only, so that a transaction does not start to fail when its keys start
// to exist. Deletes may overlap: the second finds nothing left.
func (p *plan) checkRepeats() error {
	var w planWrites
	w.add(p)
	if w.repeat() {
		return refuse(rpctypes.ErrGRPCDuplicateKey)
	}
	return nil
}

// planWrites is what a plan puts and deletes.
type planWrites struct {
	puts [][]byte
	dels []shard.Span
}

func (w *planWrites) add(p *plan) {
	for _, op := range p.ops {
		switch o := op.GetRequest().(type) {
		case *pb.RequestOp_RequestPut:
			w.puts = append(w.puts, o.RequestPut.GetKey())
		case *pb.RequestOp_RequestDeleteRange:
			s := shard.RequestSpan(o.RequestDeleteRange.GetKey(), o.RequestDeleteRange.GetRangeEnd())
			if !s.Empty() {
				w.dels = append(w.dels, s)
			}
		}
	}
	for _, n := range p.nested {
		w.add(n)
	}
}

// repeat reports whether a key is put twice, or put and deleted. It sorts and then passes once
// through both lists, because clients determine their lengths.
func (w *planWrites) repeat() bool {
	if len(w.puts) == 0 || len(w.puts)+len(w.dels) == 1 {
		return false
	}
	slices.SortFunc(w.puts, bytes.Compare)
	slices.SortFunc(w.dels, func(a, b shard.Span) int { return bytes.Compare(a.Start, b.Start) })
	dels := w.dels
	// Of the deletes that start at or before key, the furthest end.
	var end []byte
	endless := false
	for i, key := range w.puts {
		if i > 0 && bytes.Equal(w.puts[i-1], key) {
			return true
		}
		for len(dels) > 0 && bytes.Compare(dels[0].Start, key) <= 0 {
			endless = endless || len(dels[0].End) == 0
			if bytes.Compare(dels[0].End, end) > 0 {
				end = dels[0].End
			}
			dels = dels[1:]
		}
		if endless || bytes.Compare(key, end) < 0 {
			return true
		}
	}
	return false
}
