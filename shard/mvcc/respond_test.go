package mvcc

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// write applies transactions of one change each, "put key value" or "del key".
func write(t testing.TB, e *engine.Engine, rev shard.Revision, lines ...string) shard.Revision {
	t.Helper()
	b := e.NewBatch()
	defer b.Close()
	w := NewWriter(e.NewReader(), NewHeaderCache(NewHeaderBudget(0, 100, 0)))
	for _, line := range lines {
		w.Begin(rev)
		f := strings.Fields(line)
		if f[0] == "del" {
			require.NoError(t, w.Delete([]byte(f[1])))
		} else {
			found, err := w.Find([]byte(f[1]))
			require.NoError(t, err)
			require.NoError(t, w.Put([]byte(f[1]), []byte(f[2]), 0, found))
		}
		rev++
	}
	require.NoError(t, w.Store(b))
	require.NoError(t, e.Commit(b))
	w.Finish()
	return rev
}

// TestRangeAsEtcd replays what a real etcd answered. Each request is answered from
// one shard and from two that meet at "c".
func TestRangeAsEtcd(t *testing.T) {
	recorded, err := os.ReadFile("testdata/range_etcd.txt")
	require.NoError(t, err)
	written, answers, ok := strings.Cut(string(recorded), "----\n")
	require.True(t, ok)

	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	var lines []string
	for line := range strings.Lines(written) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	write(t, e, 2, lines...)
	for line := range strings.Lines(answers) {
		request, want, ok := strings.Cut(strings.TrimSpace(line), " -> ")
		require.True(t, ok)
		req := parseRange(t, request)
		span := shard.RequestSpan(req.Key, req.RangeEnd)
		require.Equal(t, want, answer(t, e, req, span), request)
		left, right := shard.Span{End: []byte("c")}, shard.Span{Start: []byte("c")}
		require.Equal(t, want, answer(t, e, req, span.Intersect(left), span.Intersect(right)), "two shards: %s", request)
	}
}

func parseRange(t *testing.T, s string) *pb.RangeRequest {
	var target, order string
	r := &pb.RangeRequest{}
	_, err := fmt.Sscanf(s, "%s %s %d %t %t %d %d %d %d %d %q %q", &target, &order, &r.Limit, &r.KeysOnly, &r.CountOnly, &r.Revision,
		&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision, &r.Key, &r.RangeEnd)
	require.NoError(t, err, s)
	r.SortTarget = pb.RangeRequest_SortTarget(pb.RangeRequest_SortTarget_value[target])
	r.SortOrder = pb.RangeRequest_SortOrder(pb.RangeRequest_SortOrder_value[order])
	return r
}

func answer(t *testing.T, e *engine.Engine, req *pb.RangeRequest, spans ...shard.Span) string {
	var all listing.Fetched
	for _, s := range spans {
		f, err := Fetch(e.NewReader(), s, shard.Revision(req.Revision), listing.OptionsFor(req))
		require.NoError(t, err)
		all.KVs = append(all.KVs, f.KVs...)
		all.Count += f.Count
	}
	resp := listing.Respond(req, all)
	var out strings.Builder
	fmt.Fprintf(&out, "%d %t", resp.Count, resp.More)
	for _, kv := range resp.Kvs {
		fmt.Fprintf(&out, " %s/%d/%d/%d/%s", kv.Key, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Value)
	}
	return out.String()
}
