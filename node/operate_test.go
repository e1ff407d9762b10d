package node_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// Any node takes what people want done, also one that is no member of the meta group; a
// split only while all replicas answer.
func TestOperatorsByTheAdminService(t *testing.T) {
	t.Parallel()
	c := moveCluster(t, nil)
	first, fourth := c.Node(1), c.Node(4)
	d := theShard(first)
	api := admin(t, c, fourth)
	_, err := api.Move(t.Context(), &adminpb.MoveRequest{Shard: uint64(d.ID), From: "n2", To: "n4"})
	require.NoError(t, err)
	requireMoved(t, fourth, d.ID, id(c.Node(2)), id(fourth))

	testcluster.Eventually(t, "a split to begin", func(ctx context.Context) error {
		_, err := api.Split(ctx, &adminpb.SplitRequest{Key: []byte("m")})
		return err
	})
	waitSplit(t, first, "m")

	fourth.Stop()
	_, err = admin(t, c, first).Split(t.Context(), &adminpb.SplitRequest{Key: []byte("c"), DryRun: true})
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.ErrorContains(t, err, "all its replicas have to answer")
}
