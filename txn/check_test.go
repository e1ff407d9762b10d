package txn_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/txn"
)

func TestCheckPut(t *testing.T) {
	for _, c := range []struct {
		name string
		req  *pb.PutRequest
		want error
	}{
		{"plain", &pb.PutRequest{Key: []byte("a")}, nil},
		{"ignore value without value", &pb.PutRequest{Key: []byte("a"), IgnoreValue: true}, nil},
		{"nil", nil, rpctypes.ErrGRPCEmptyKey},
		{"empty key", &pb.PutRequest{Value: []byte("v")}, rpctypes.ErrGRPCEmptyKey},
		{"value ignored and given", &pb.PutRequest{Key: []byte("a"), Value: []byte("v"), IgnoreValue: true}, rpctypes.ErrGRPCValueProvided},
		{"lease ignored and given", &pb.PutRequest{Key: []byte("a"), Lease: 1, IgnoreLease: true}, rpctypes.ErrGRPCLeaseProvided},
		{"key before value", &pb.PutRequest{Value: []byte("v"), IgnoreValue: true}, rpctypes.ErrGRPCEmptyKey},
		{"value before lease", &pb.PutRequest{Key: []byte("a"), Value: []byte("v"), IgnoreValue: true, Lease: 1, IgnoreLease: true}, rpctypes.ErrGRPCValueProvided},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, txn.CheckPut(c.req)) })
	}
}

func TestCheckRange(t *testing.T) {
	for _, c := range []struct {
		name string
		req  *pb.RangeRequest
		want error
	}{
		{"plain", &pb.RangeRequest{Key: []byte("a")}, nil},
		{"end before key", &pb.RangeRequest{Key: []byte("b"), RangeEnd: []byte("a")}, nil},
		{"negative limit and revision", &pb.RangeRequest{Key: []byte("a"), Limit: -1, Revision: -1}, nil},
		{"last known options", &pb.RangeRequest{Key: []byte("a"), SortOrder: 2, SortTarget: 4}, nil},
		{"nil", nil, rpctypes.ErrGRPCEmptyKey},
		{"empty key", &pb.RangeRequest{RangeEnd: []byte("a")}, rpctypes.ErrGRPCEmptyKey},
		{"unknown order", &pb.RangeRequest{Key: []byte("a"), SortOrder: 3}, rpctypes.ErrGRPCInvalidSortOption},
		{"unknown target", &pb.RangeRequest{Key: []byte("a"), SortTarget: 5}, rpctypes.ErrGRPCInvalidSortOption},
		{"negative order", &pb.RangeRequest{Key: []byte("a"), SortOrder: -1}, rpctypes.ErrGRPCInvalidSortOption},
		{"key before options", &pb.RangeRequest{SortOrder: 3}, rpctypes.ErrGRPCEmptyKey},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, txn.CheckRange(c.req)) })
	}
}

func TestCheckDeleteRange(t *testing.T) {
	require.NoError(t, txn.CheckDeleteRange(&pb.DeleteRangeRequest{Key: []byte("b"), RangeEnd: []byte("a")}))
	require.Equal(t, rpctypes.ErrGRPCEmptyKey, txn.CheckDeleteRange(&pb.DeleteRangeRequest{}))
	require.Equal(t, rpctypes.ErrGRPCEmptyKey, txn.CheckDeleteRange(nil))
}

func TestCheckTxn(t *testing.T) {
	bad := rpctypes.ErrGRPCEmptyKey
	dup := rpctypes.ErrGRPCDuplicateKey
	for _, c := range []struct {
		name string
		req  *pb.TxnRequest
		want error
	}{
		{"nothing", &pb.TxnRequest{}, nil},
		{"nil", nil, nil},
		{"compare without key", &pb.TxnRequest{Compare: []*pb.Compare{{}}}, bad},
		{"nil compare", &pb.TxnRequest{Compare: []*pb.Compare{nil}}, bad},
		{"operation of no kind", &pb.TxnRequest{Success: ops(&pb.RequestOp{})}, rpctypes.ErrGRPCKeyNotFound},
		{"nil operation", &pb.TxnRequest{Success: ops(nil)}, rpctypes.ErrGRPCKeyNotFound},
		{"nil put", &pb.TxnRequest{Success: ops(&pb.RequestOp{Request: &pb.RequestOp_RequestPut{}})}, bad},
		{"bad put in failure", &pb.TxnRequest{Failure: ops(put(""))}, bad},
		{"bad range", &pb.TxnRequest{Success: ops(rng("", ""))}, bad},
		{"bad delete", &pb.TxnRequest{Success: ops(del("", ""))}, bad},
		{"bad put in nested", then(nest(then(put("")), nil)), bad},

		// The order of faults: count, compares, success, failure, overlaps.
		{"count before compare", &pb.TxnRequest{Compare: []*pb.Compare{{}, {}, {}, {}, {}}}, rpctypes.ErrGRPCTooManyOps},
		{"compare before success", &pb.TxnRequest{Compare: []*pb.Compare{{}}, Success: ops(&pb.RequestOp{})}, bad},
		{"success before failure", &pb.TxnRequest{Success: ops(&pb.RequestOp{}), Failure: ops(put(""))}, rpctypes.ErrGRPCKeyNotFound},
		{"operations in order", then(put("a"), &pb.RequestOp{}, put("")), rpctypes.ErrGRPCKeyNotFound},
		{"faults before overlaps", then(put("a"), put("a"), put("")), bad},
		{"failure's faults before success's overlaps", &pb.TxnRequest{Success: ops(put("a"), put("a")), Failure: ops(put(""))}, bad},

		// The budget is 4 here. A level costs its longest list.
		{"4 operations", then(put("a"), put("b"), put("c"), put("d")), nil},
		{"5 operations", then(put("a"), put("b"), put("c"), put("d"), put("e")), rpctypes.ErrGRPCTooManyOps},
		{"lists do not add up", &pb.TxnRequest{
			Compare: []*pb.Compare{cmp("a"), cmp("b"), cmp("c"), cmp("d")},
			Success: ops(put("a"), put("b"), put("c"), put("d")),
			Failure: ops(put("a"), put("b"), put("c"), put("d")),
		}, nil},
		{"nested uses what is left", then(put("a"), nest(then(put("b"), put("c")), nil)), nil},
		{"nested over what is left", then(put("a"), nest(then(put("b"), put("c"), put("d")), nil)), rpctypes.ErrGRPCTooManyOps},
		{"siblings do not share", then(nest(then(put("a"), put("b")), nil), nest(then(put("c"), put("d")), nil)), nil},
		{"empty nested at no budget", then(put("a"), put("b"), put("c"), nest(&pb.TxnRequest{}, nil)), nil},
		{"nested count before nested faults", then(put("a"), put("b"), put("c"), nest(then(&pb.RequestOp{}), nil)), rpctypes.ErrGRPCTooManyOps},
		{"depth 4", then(nest(then(nest(then(nest(then(put("a")), nil)), nil)), nil)), nil},
		{"depth 5", then(nest(then(nest(then(nest(then(nest(then(put("a")), nil)), nil)), nil)), nil)), rpctypes.ErrGRPCTooManyOps},

		// Overlaps.
		{"same key in both branches", &pb.TxnRequest{Success: ops(put("a")), Failure: ops(put("a"))}, nil},
		{"put twice", then(put("a"), put("a")), dup},
		{"put twice in failure", &pb.TxnRequest{Failure: ops(put("a"), put("a"))}, dup},
		{"put then delete", then(put("a"), del("a", "")), dup},
		{"delete then put", then(del("a", ""), put("a")), dup},
		{"put inside a deleted range", then(del("a", "c"), put("b")), dup},
		{"put at the end of a deleted range", then(del("a", "c"), put("c")), nil},
		{"put before a deleted range", then(del("b", "c"), put("a")), nil},
		{"put just after a deleted key", then(del("a", ""), put("a\x00")), nil},
		{"put in the second of three ranges", then(del("x", "z"), del("c", "e"), del("a", "b"), put("d")), dup},
		{"put between ranges", then(del("x", "z"), del("c", "e"), del("a", "b"), put("f")), nil},
		{"put in a range inside a range", then(del("a", "m"), del("b", "c"), put("d")), dup},
		{"deletes may overlap", then(del("a", "m"), del("b", "z"), del("b", "")), nil},
		{"range and put", then(rng("a", ""), put("a"), rng("a", "")), nil},
		{"delete to the end is overlooked", then(del("a", "\x00"), put("b")), nil},
		{"so is its own key", then(del("a", "\x00"), put("a")), nil},
		{"delete of an inverted range", then(del("c", "a"), put("b"), put("c")), nil},
		{"inverted range hides no other", then(del("c", "a"), del("b", "d"), put("c")), dup},

		{"nested put and put", then(put("a"), nest(then(put("a")), nil)), dup},
		{"nested put and delete", then(nest(then(put("b")), nil), del("a", "c")), dup},
		{"nested delete and put", then(put("b"), nest(then(del("a", "c")), nil)), dup},
		{"nested failure counts too", then(put("a"), nest(&pb.TxnRequest{Failure: ops(put("a"))}, nil)), dup},
		{"nested branches may share", then(nest(then(put("a")), ops(put("a")))), nil},
		{"nested branches may put and delete", then(nest(then(put("a")), ops(del("a", "")))), nil},
		{"sibling puts", then(nest(then(put("a")), nil), nest(then(put("a")), nil)), dup},
		{"sibling put in failure", then(nest(then(put("a")), nil), nest(&pb.TxnRequest{}, ops(put("a")))), dup},
		{"sibling delete then put", then(nest(then(del("a", "")), nil), nest(then(put("a")), nil)), dup},
		{"sibling put then delete is overlooked", then(nest(then(put("a")), nil), nest(then(del("a", "")), nil)), nil},
		{"overlap inside a nested branch", then(nest(&pb.TxnRequest{Failure: ops(put("a"), put("a"))}, nil)), dup},
		{"two levels down", then(put("a"), nest(then(nest(then(put("a")), nil)), nil)), dup},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, txn.CheckTxn(c.req, 4)) })
	}
}

// A client chooses how many operations and levels it sends; checking must stay
// cheap for the worst of them (T3).
func TestCheckTxnOfManyDeletes(t *testing.T) {
	wide := then()
	key := []byte{0, 0, 0}
	for i := range 64 {
		nested := then()
		for j := range 64 {
			key[0], key[1], key[2] = byte(j), byte(i), 1
			nested.Success = append(nested.Success, del(string(key), ""))
		}
		wide.Success = append(wide.Success, nest(nested, nil))
	}
	require.NoError(t, txn.CheckTxn(wide, txn.DefaultMaxOps))
}

func ops(list ...*pb.RequestOp) []*pb.RequestOp { return list }

func then(list ...*pb.RequestOp) *pb.TxnRequest { return &pb.TxnRequest{Success: list} }

// nest wraps t, with failure added to its failure branch, into an operation.
func nest(t *pb.TxnRequest, failure []*pb.RequestOp) *pb.RequestOp {
	t.Failure = append(t.Failure, failure...)
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}

func put(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte("v")}}}
}

func del(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)},
	}}
}

func rng(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{
		RequestRange: &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)},
	}}
}

func cmp(key string) *pb.Compare { return &pb.Compare{Key: []byte(key)} }
