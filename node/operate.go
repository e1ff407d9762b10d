package node

import (
	"context"
	"fmt"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Move starts to move a shard's replica from one node to another; either may be 0: then a replica
// is only added, or only removed. It returns the operator's ID once the move is recorded. From then
// on it continues automatically.
func (n *Node) Move(ctx context.Context, id shard.ID, from, to shard.NodeID, why string) (uint64, error) {
	d := n.table.Map().Shard(id)
	if d == nil {
		return 0, fmt.Errorf("move a replica of shard %s: there is no such shard", id)
	}
	return n.begin(ctx, placement.BeginMove(d, from, to, why))
}

// Split starts to split the shard of a key there: the key and those after it become a shard of
// their own. It returns the operator's ID once the split is recorded. From then on it continues
// automatically. It is refused while a replica of the shard does not answer.
func (n *Node) Split(ctx context.Context, key []byte, why string) (uint64, error) {
	return n.beginSplit(ctx, n.table.Map().Lookup(key), key, why)
}

func (n *Node) beginSplit(ctx context.Context, d *shard.Descriptor, key []byte, why string) (uint64, error) {
	if err := n.ReadyToSplit(ctx, d); err != nil {
		return 0, err
	}
	return n.begin(ctx, placement.BeginSplit(d, key, why))
}

// Merge starts to merge a shard with its right neighbour. It returns the operator's ID once the
// merge is recorded. From then on it continues automatically. It is refused while a replica of
// either does not answer, and when they are not on the same nodes.
func (n *Node) Merge(ctx context.Context, id shard.ID, why string) (uint64, error) {
	m := n.table.Map()
	d := m.Shard(id)
	if d == nil {
		return 0, fmt.Errorf("merge shard %s with its right neighbour: there is no such shard", id)
	}
	right := m.RightOf(d)
	if right == nil {
		return 0, fmt.Errorf("merge shard %s with its right neighbour: it is the last one and has none", id)
	}
	return n.beginMerge(ctx, d, right, why)
}

func (n *Node) beginMerge(ctx context.Context, d, right *shard.Descriptor, why string) (uint64, error) {
	if err := n.ReadyToMerge(ctx, d, right); err != nil {
		return 0, err
	}
	return n.begin(ctx, placement.BeginMerge(d, right, why))
}

// ReadyToMerge implements adminapi.Changes. It asks the shards' nodes.
func (n *Node) ReadyToMerge(ctx context.Context, d, right *shard.Descriptor) error {
	err := placement.Together(d, right)
	for _, half := range []*shard.Descriptor{d, right} {
		if err == nil {
			_, err = well(half, n.control.reports(ctx, n.table.Map(), half))
		}
	}
	if err != nil {
		return fmt.Errorf("merge shard %s into shard %s: %w", right.ID, d.ID, err)
	}
	return nil
}

func (n *Node) begin(ctx context.Context, c *placementpb.Command) (uint64, error) {
	result, err := n.meta.propose(ctx, c)
	return result.GetOperatorId(), err
}

// CancelOperator cancels an operator that can still be undone.
func (n *Node) CancelOperator(ctx context.Context, id shard.ID, operator uint64) error {
	_, err := n.meta.propose(ctx, placement.CancelOf(id, operator))
	return err
}

// Newest implements adminapi.Changes. A node without a replica of the meta group may lag by the
// changes that are on their way to it.
func (n *Node) Newest(ctx context.Context) (*placement.Map, error) { return n.meta.barrier(ctx) }

// Propose implements adminapi.Changes.
func (n *Node) Propose(ctx context.Context, c *placementpb.Command) (*placementpb.Result, error) {
	return n.meta.propose(ctx, c)
}

// ReadyToSplit implements adminapi.Changes. It asks the shard's nodes.
func (n *Node) ReadyToSplit(ctx context.Context, d *shard.Descriptor) error {
	if _, err := well(d, n.control.reports(ctx, n.table.Map(), d)); err != nil {
		return fmt.Errorf("split shard %s: all its replicas have to answer: %w", d.ID, err)
	}
	return nil
}

// Rebalance implements adminapi.Changes: it starts the steps of the present plan, once, and returns
// those that started. A node that has not collected load lately considers no node dead.
func (n *Node) Rebalance(ctx context.Context) ([]placement.Step, error) { return n.balance.round(ctx) }
