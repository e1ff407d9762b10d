package txn_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/txn"
)

func TestFootprint(t *testing.T) {
	for _, c := range []struct {
		name          string
		req           *pb.TxnRequest
		reads, writes string
	}{
		{"range", then(rng("a", "c")), `["a", "c")`, ``},
		{"range from key on", then(rng("a", "\x00")), `["a", ∞)`, ``},
		{"range of nothing", then(rng("c", "a")), ``, ``},
		{"put", then(put("a")), ``, `["a", "a\x00")`},
		{"put that reads", then(&pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("a"), IgnoreLease: true}}}), `["a", "a\x00")`, `["a", "a\x00")`},
		{"delete", then(del("a", "b")), ``, `["a", "b")`},
		{"delete that reads", then(&pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("b"), PrevKv: true}}}), `["a", "b")`, `["a", "b")`},
		{"nested", &pb.TxnRequest{
			Compare: []*pb.Compare{cmp("c"), {Key: []byte("r"), RangeEnd: []byte("s")}},
			Success: ops(put("a"), nest(&pb.TxnRequest{
				Compare: []*pb.Compare{cmp("d")},
				Success: ops(rng("e", "f")),
			}, ops(del("g", "\x00")))),
			Failure: ops(del("h", ""), rng("z", "y"), nil),
		}, `["c", "c\x00") ["r", "s") ["d", "d\x00") ["e", "f")`, `["a", "a\x00") ["g", ∞) ["h", "h\x00")`},
		{"nothing", &pb.TxnRequest{}, ``, ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := txn.FootprintTxn(c.req)
			require.Equal(t, c.reads, printSpans(got.Reads))
			require.Equal(t, c.writes, printSpans(got.Writes))
		})
	}
}

func TestFootprintWithin(t *testing.T) {
	f := txn.FootprintTxn(&pb.TxnRequest{Compare: []*pb.Compare{cmp("a")}, Success: ops(put("c"))})
	require.True(t, f.Within(shard.Everything()))
	require.True(t, f.Within(shard.Span{Start: []byte("a"), End: []byte("d")}))
	require.False(t, f.Within(shard.Span{Start: []byte("a"), End: []byte("c")}), "the write is outside")
	require.False(t, f.Within(shard.Span{Start: []byte("b")}), "the compare is outside")
}

func TestReadOnlyAndSerializable(t *testing.T) {
	stale := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{
		RequestRange: &pb.RangeRequest{Key: []byte("a"), Serializable: true},
	}}
	for _, c := range []struct {
		name                   string
		req                    *pb.TxnRequest
		readOnly, serializable bool
	}{
		{"nothing", &pb.TxnRequest{}, true, false},
		{"only compares asked for nothing stale", &pb.TxnRequest{Compare: []*pb.Compare{cmp("a")}}, true, false},
		{"serializable range", then(stale), true, true},
		{"one of two", then(stale, rng("a", "")), true, false},
		{"put in failure", &pb.TxnRequest{Success: ops(stale), Failure: ops(put("a"))}, false, false},
		{"nested ranges write, as in etcd", then(nest(then(stale), nil)), false, false},
		{"operation of no kind", then(nil), false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.readOnly, txn.IsReadOnly(c.req))
			require.Equal(t, c.serializable, txn.IsSerializable(c.req))
		})
	}
}

func TestCrossShardError(t *testing.T) {
	err := &txn.CrossShardError{Places: []txn.Place{
		{Span: shard.PointSpan([]byte("jobs/1")), Shards: []shard.ID{2}},
		{Span: shard.PointSpan([]byte("jobs/2")), Shards: []shard.ID{2}},
		{Span: shard.Span{Start: []byte("x\x1b[31m"), End: []byte("z")}, Shards: []shard.ID{4, 3}},
		{Span: shard.Span{Start: []byte("zz")}, Shards: []shard.ID{4}},
	}}
	require.Equal(t, `flotilla: txn touches 3 shards, but is atomic in one only: "jobs/1" in shard 2, `+
		`["x\x1b[31m", "z") in shards 3+4, "jobs/2" in shard 2, ["zz", ∞) in shard 4; nothing was applied. `+
		`Put keys that change together under one prefix in one shard (merge the shards or split elsewhere), or use one txn per shard`,
		err.Error())
	require.Equal(t, codes.FailedPrecondition, status.Code(fmt.Errorf("route txn: %w", err)))
}

func TestCrossShardErrorIsBounded(t *testing.T) {
	long := []byte(strings.Repeat("k\n\xff", 1<<16))
	var err txn.CrossShardError
	for id := range shard.ID(1000) {
		ids := make([]shard.ID, 0, 100)
		for i := range shard.ID(100) {
			ids = append(ids, id*100+i)
		}
		err.Places = append(err.Places, txn.Place{Span: shard.Span{Start: long, End: long}, Shards: ids})
	}
	require.Less(t, len(err.Error()), 8<<10)
	require.NotContains(t, err.Error(), "\n")
	require.Contains(t, err.Error(), "and 994 more")
	require.Contains(t, err.Error(), "touches 100000 shards")
}

func printSpans(list []shard.Span) string {
	var out []string
	for _, s := range list {
		out = append(out, s.String())
	}
	return strings.Join(out, " ")
}
