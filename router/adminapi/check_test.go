package adminapi

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// What comparing replicas has found is told in names, with a sum where there is one.
func TestCheck(t *testing.T) {
	s, c := withFourth(t)
	c.checked = &Checked{Index: 7, Verdict: Damaged, Replicas: []CheckedReplica{
		{Replica: shard.Replica{ID: 1, Node: 1}, Result: Agrees, Sum: 0xab, Versions: 3, Bytes: 30},
		{Replica: shard.Replica{ID: 2, Node: 2}, Result: Unknown, Text: "it does not answer"},
	}}
	reply, err := s.Check(t.Context(), &adminpb.CheckRequest{Shard: 3})
	require.NoError(t, err)
	require.Equal(t, []any{uint64(3), uint64(7), "damaged"}, []any{reply.Shard, reply.Index, reply.Verdict})
	require.Equal(t, []any{"n1", "agrees", "00000000000000ab", int64(3)},
		[]any{reply.Replicas[0].Node, reply.Replicas[0].Result, reply.Replicas[0].Sum, reply.Replicas[0].Versions})
	require.Equal(t, []any{"n2", "unknown", "", "it does not answer"},
		[]any{reply.Replicas[1].Node, reply.Replicas[1].Result, reply.Replicas[1].Sum, reply.Replicas[1].Text})
	_, err = s.Check(t.Context(), &adminpb.CheckRequest{Shard: 99})
	require.Equal(t, codes.NotFound, status.Code(err))
	c.lost = errors.New("nobody leads")
	_, err = s.Check(t.Context(), &adminpb.CheckRequest{Shard: 3})
	require.Equal(t, codes.Unavailable, status.Code(err))
}
