package node

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// RemoveMember implements etcdapi.Cluster. Operators may wipe a removed member of etcd once they
// get the answer, so it succeeds only when the node holds nothing any more.
func (c *cluster) RemoveMember(ctx context.Context, id uint64) error {
	m, n, err := c.member(ctx, id)
	if err != nil {
		return err
	}
	if n == nil {
		return rpctypes.ErrGRPCMemberNotFound
	}
	if n.State != placement.Decommissioning {
		if err := m.Spares(n.ID); err != nil {
			return precondition("%v", err)
		}
		if _, err := c.node.meta.propose(ctx, placement.SetState(n.ID, placement.Decommissioning)); err != nil {
			return refusedAs(err)
		}
	}
	if left := len(m.OnNode(n.ID)); left > 0 {
		return precondition("%s is being emptied, replicas left on it: %d; flotilla node decommission %s --wait waits until none is, then remove the member again", n.Name, left, n.Name)
	}
	_, err = c.node.meta.propose(ctx, placement.Remove(n.ID))
	return refusedAs(err)
}

// MoveLeader implements etcdapi.Cluster. The node is preferred from now on, so it leads again after
// it was away.
func (c *cluster) MoveLeader(ctx context.Context, id uint64) error {
	m, n, err := c.member(ctx, id)
	if err != nil {
		return err
	}
	group := m.Shard(shard.MetaID)
	if n == nil || group == nil {
		return rpctypes.ErrGRPCBadLeaderTransferee
	}
	if r, has := group.ReplicaOn(n.ID); !has || r.Learner || n.State != placement.Active {
		return precondition("%s (%s) cannot lead the meta group, which is on %s; flotilla shard move 1 --from NODE --to %s gives it a replica",
			n.Name, n.State, strings.Join(holders(m, group), ", "), n.Name)
	}
	if group.PreferredNode != n.ID {
		if _, err := c.node.meta.propose(ctx, placement.Prefer(group, n.ID)); err != nil {
			return refusedAs(err)
		}
	}
	for {
		leader, err := leaderOf(c.node.control.reports(ctx, m, group))
		if err == nil && leader.Node == n.ID {
			return nil
		}
		if rest(ctx) != nil {
			return rpctypes.ErrGRPCTimeout
		}
	}
}

// member finds a node in the newest table; nil if it is not part of the cluster.
func (c *cluster) member(ctx context.Context, id uint64) (*placement.Map, *placement.Node, error) {
	m, err := c.node.meta.barrier(ctx)
	if err != nil {
		return nil, nil, err
	}
	n := m.Node(shard.NodeID(id))
	if n != nil && n.State == placement.Removed {
		n = nil
	}
	return m, n, nil
}

// holders returns the names of the nodes of a group.
func holders(m *placement.Map, d *shard.Descriptor) []string {
	var names []string
	for _, r := range d.Replicas {
		names = append(names, m.Node(r.Node).Name)
	}
	return names
}

// refusedAs converts a placement command's refusal into the error that etcd's clients get. Any other error is
// unchanged.
func refusedAs(err error) error {
	var refused *placement.RefusedError
	switch {
	case !errors.As(err, &refused):
		return err
	case refused.Code == placementpb.Code_NOT_FOUND:
		return rpctypes.ErrGRPCMemberNotFound
	}
	return precondition("%s", refused.Message)
}

func precondition(format string, args ...any) error {
	return status.Error(codes.FailedPrecondition, "flotilla: "+fmt.Sprintf(format, args...))
}
