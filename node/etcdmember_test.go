package node_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// etcd's tools move the leader of the meta group, and remove a member: it is emptied first,
// and they are told how far that is.
func TestEtcdMembers(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Balance: true})
	client := c.Client(t, c.Node(1), c.Node(2))
	put(t, client, "k", "v")

	third := c.Node(3)
	_, err := client.MemberRemove(t.Context(), uint64(id(third)))
	require.ErrorContains(t, err, "without it 2 nodes are active, and shards should have 3 replicas")
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	_, err = client.MoveLeader(t.Context(), 99)
	require.Equal(t, rpctypes.ErrBadLeaderTransferee, err)

	fourth := c.Add()
	fourth.Start(t)
	briskly(t, c.Node(1), nil)
	_, err = client.MoveLeader(t.Context(), uint64(id(fourth)))
	require.ErrorContains(t, err, "flotilla shard move 1 --from NODE --to n4")
	_, err = client.MoveLeader(t.Context(), uint64(id(third)))
	require.NoError(t, err)
	require.Equal(t, third, metaLeader(t, c))
	testcluster.Eventually(t, "another node to hear of the leader", func(ctx context.Context) error {
		resp, err := client.Status(ctx, c.Node(1).ClientAddr())
		if err == nil && resp.Leader != uint64(id(third)) {
			err = fmt.Errorf("it takes %d for the leader", resp.Leader)
		}
		return err
	})

	gone, done := uint64(id(third)), third.Inside().Done()
	_, err = client.MemberRemove(t.Context(), gone)
	require.ErrorContains(t, err, "flotilla node decommission n3 --wait")
	testcluster.Eventually(t, "the member to be removed", func(ctx context.Context) error {
		resp, err := client.MemberRemove(ctx, gone)
		if err == nil && len(resp.Members) != 3 {
			err = fmt.Errorf("%d members are left", len(resp.Members))
		}
		return err
	})
	<-done
	_, err = client.MemberRemove(t.Context(), gone)
	require.ErrorIs(t, err, rpctypes.ErrMemberNotFound)
	third.Stop()
	requireValue(t, client, "k", "v")
	requireRefused(t, third, "was removed from cluster")
}
