package node

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// handOver makes a replica on another node the leader, and returns when it leads.
func (n *Node) handOver(ctx context.Context, r *replica.Replica, to shard.Replica) error {
	err := r.HandOver(ctx, &heir{Replica: to, node: n, shard: r.ID(), empty: r.View().Descriptor == nil})
	if err != nil {
		return fmt.Errorf("let replica %d on node %s lead: %w", to.ID, to.Node, err)
	}
	return nil
}

// transfer is handOver to the replica with this ID, which must be in the table.
func (n *Node) transfer(ctx context.Context, r *replica.Replica, to shard.ReplicaID) error {
	if d := groupOf(n.table.Map(), r.ID()); d != nil {
		for _, member := range d.Replicas {
			if member.ID == to {
				return n.handOver(ctx, r, member)
			}
		}
	}
	return fmt.Errorf("let replica %d of shard %s lead: node %q knows of no such replica", to, r.ID(), n.cfg.Name)
}

// rightful returns the replica on the preferred node, if that is another, healthy node. Then it should lead instead
// of this node's.
func (n *Node) rightful(d *shard.Descriptor) shard.Replica {
	to, has := d.ReplicaOn(d.PreferredNode)
	if !has || to.Learner || to.Node == n.self.NodeID || !n.health.steady(to.Node) || n.health.unfit(to.Node, d.ID) {
		return shard.Replica{}
	}
	return to
}

// heir returns a replica on another node that answers and can lead, on the preferred node if possible.
func (n *Node) heir(d *shard.Descriptor) (heir shard.Replica, ok bool) {
	for _, r := range d.Replicas {
		able := r.Node != n.self.NodeID && !r.Learner && n.health.answers(r.Node) && !n.health.unfit(r.Node, d.ID)
		if able && (!ok || r.Node == d.PreferredNode) {
			heir, ok = r, true
		}
	}
	return heir, ok
}

// groupOf returns the table's descriptor of a shard, or of one that is being split off; nil if there is none.
func groupOf(m *placement.Map, id shard.ID) *shard.Descriptor {
	for _, o := range m.Operators() {
		if o.Child != nil && o.Child.ID == id {
			return o.Child
		}
	}
	return m.Shard(id)
}

// heir is a replica on another node that is to lead.
type heir struct {
	shard.Replica
	node  *Node
	shard shard.ID
	// empty: the shard has no data yet that the heir could lack.
	empty bool
}

var _ replica.Heir = (*heir)(nil)

// CatchUp implements replica.Heir.
func (h *heir) CatchUp(ctx context.Context) error {
	if h.empty {
		return nil
	}
	return h.order(ctx, &routerpb.DirectRequest{Order: &routerpb.DirectRequest_CatchUp{CatchUp: &routerpb.Member{Replica: uint64(h.ID)}}})
}

// Succeed implements replica.Heir.
func (h *heir) Succeed(ctx context.Context, o replica.Handover) error {
	err := h.order(ctx, &routerpb.DirectRequest{Order: &routerpb.DirectRequest_Succeed{Succeed: &routerpb.Handover{
		Replica: uint64(h.ID), Term: o.Term, Applied: o.Applied, Last: o.Last,
	}}})
	if status.Code(err) == codes.Aborted {
		return fmt.Errorf("%w: %w", replica.ErrDeclined, err)
	}
	return err
}

func (h *heir) order(ctx context.Context, req *routerpb.DirectRequest) error {
	req.Shard = uint64(h.shard)
	return h.node.control.order(ctx, h.node.table.Map(), h.Node, req)
}
