package txn

import (
	"bytes"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/shard"
)

// checkOverlaps refuses a branch that could write one key twice. The rule is
// etcd's, with what it overlooks (T1):
//
//   - deletes may overlap each other;
//   - the two branches of one nested transaction may write the same keys, as only
//     one of them runs;
//   - a put in a nested transaction is not held against a delete in a *later*
//     nested transaction of the same level;
//   - a delete with range_end "\x00" ("from key on") counts as empty.
func checkOverlaps(ops []*pb.RequestOp) error {
	_, err := branchWrites(ops)
	return err
}

// writes is what one branch may write, itself and through nested transactions.
type writes struct {
	puts map[string]struct{}
	dels intervals
}

func branchWrites(ops []*pb.RequestOp) (writes, error) {
	var w writes
	var own []shard.Span
	for _, op := range ops {
		if del := op.GetRequestDeleteRange(); del != nil {
			own = append(own, deleteInterval(del))
		}
	}
	w.dels = newIntervals(own)

	for _, op := range ops {
		nested := op.GetRequestTxn()
		if nested == nil {
			continue
		}
		success, err := branchWrites(nested.GetSuccess())
		if err != nil {
			return writes{}, err
		}
		failure, err := branchWrites(nested.GetFailure())
		if err != nil {
			return writes{}, err
		}
		if w.meetsPuts(success) || w.meetsPuts(failure) {
			return writes{}, rpctypes.ErrGRPCDuplicateKey
		}
		w.add(success)
		w.add(failure)
	}

	for _, op := range ops {
		put := op.GetRequestPut()
		if put == nil {
			continue
		}
		if w.meets(string(put.GetKey())) {
			return writes{}, rpctypes.ErrGRPCDuplicateKey
		}
		w.put(string(put.GetKey()))
	}
	return w, nil
}

func (w *writes) meets(key string) bool {
	_, twice := w.puts[key]
	return twice || w.dels.contain([]byte(key))
}

func (w *writes) meetsPuts(o writes) bool {
	for key := range o.puts {
		if w.meets(key) {
			return true
		}
	}
	return false
}

func (w *writes) put(key string) {
	if w.puts == nil {
		w.puts = make(map[string]struct{})
	}
	w.puts[key] = struct{}{}
}

func (w *writes) add(o writes) {
	for key := range o.puts {
		w.put(key)
	}
	w.dels = w.dels.union(o.dels)
}

// deleteInterval is the interval that etcd's overlap check sees. It takes
// range_end "\x00" literally, which leaves nothing between the key and the end.
func deleteInterval(del *pb.DeleteRangeRequest) shard.Span {
	if len(del.GetRangeEnd()) == 0 {
		return shard.PointSpan(del.GetKey())
	}
	return shard.Span{Start: del.GetKey(), End: del.GetRangeEnd()}
}

// intervals are bounded spans in key order that neither touch nor overlap, so
// that both questions below take one pass or one search.
type intervals []shard.Span

func newIntervals(spans []shard.Span) intervals {
	spans = slices.DeleteFunc(spans, shard.Span.Empty)
	slices.SortFunc(spans, func(a, b shard.Span) int { return bytes.Compare(a.Start, b.Start) })
	return joined(spans)
}

// joined merges what touches or overlaps in spans ordered by start. It reuses
// the array of its argument.
func joined(spans []shard.Span) intervals {
	out := spans[:0]
	for _, s := range spans {
		last := len(out) - 1
		if last < 0 || bytes.Compare(out[last].End, s.Start) < 0 {
			out = append(out, s)
		} else if bytes.Compare(out[last].End, s.End) < 0 {
			out[last].End = s.End
		}
	}
	return out
}

func (iv intervals) contain(key []byte) bool {
	// The only candidate is the last interval that starts at or before key.
	after, _ := slices.BinarySearchFunc(iv, key, func(s shard.Span, key []byte) int {
		if bytes.Compare(s.Start, key) <= 0 {
			return -1
		}
		return 1
	})
	return after > 0 && iv[after-1].Contains(key)
}

// union merges in one pass: inserting one by one would be quadratic in a request
// that a client is free to fill with deletes.
func (iv intervals) union(o intervals) intervals {
	if len(iv) == 0 {
		return o
	}
	if len(o) == 0 {
		return iv
	}
	merged := make([]shard.Span, 0, len(iv)+len(o))
	for len(iv) > 0 && len(o) > 0 {
		if bytes.Compare(iv[0].Start, o[0].Start) <= 0 {
			merged, iv = append(merged, iv[0]), iv[1:]
		} else {
			merged, o = append(merged, o[0]), o[1:]
		}
	}
	return joined(append(append(merged, iv...), o...))
}
