package node

import (
	"context"
	"slices"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// A log is truncated past the split or merge that gave its shard its present keys. A replica that started from
// earlier entries would act on keys that belong to another shard by now. The controller has this done before the
// operator ends; a node that was away at that time truncates its own log later.

const (
	// weanPatience is how long an operator waits for the logs of nodes that do not answer, unless their process has
	// ended: these are not waited for.
	weanPatience = 5 * time.Second
	// weanTimeout bounds one attempt of a node to truncate its own log.
	weanTimeout = 5 * time.Second
)

// wean truncates the logs of a majority of a shard's replicas past the operator that gave the shard its epoch. A
// replica that has not applied it does not count. A node whose process has ended is not waited for: the operator would
// lock the shard meanwhile, and the node truncates its own log when it is back.
func (c *controller) wean(ctx context.Context, m *placement.Map, d *shard.Descriptor) error {
	if err := c.arrive(ctx, m, d); err != nil {
		return err
	}
	return c.orderRunning(ctx, m, d, weanPatience, &routerpb.DirectRequest{
		Shard: uint64(d.ID), Order: &routerpb.DirectRequest_Wean{Wean: &routerpb.Wean{Epoch: d.Epoch}},
	}).majority()
}

// arrive waits for a short time until all replicas that answer have applied that operator. A replica that has not
// when the logs are truncated would have to be sent all the data.
func (c *controller) arrive(ctx context.Context, m *placement.Map, d *shard.Descriptor) error {
	behind := func(r report) bool { return r.Epoch < d.Epoch && r.Unfit == "" }
	for began := time.Now(); time.Since(began) < weanPatience; {
		if !slices.ContainsFunc(c.reports(ctx, m, d), behind) {
			return nil
		}
		if err := rest(ctx); err != nil {
			return err
		}
	}
	return nil
}

// wean truncates the log of a replica of this node past an operator that ended without it: the one that gave it this
// epoch. If another one begins after the look at the table, the replica refuses.
func (a *agent) wean(ctx context.Context, r *replica.Replica, epoch uint64) {
	ctx, cancel := context.WithTimeout(ctx, weanTimeout)
	defer cancel()
	m, err := a.node.meta.barrier(ctx)
	if err == nil && reshaping(m, r.ID()) { // this node's copy of the table was old
		return
	}
	if err == nil {
		err = r.Wean(ctx, epoch)
	}
	if err != nil {
		a.node.log.Debug("cutting a log", "shard", r.ID(), "error", err)
	}
}

// reshaping reports whether a split or merge of the shard is in progress. If so, the shard's log may be the only
// thing that restores its effect after a crash (P14 of package replica). The table shows a split or merge before any
// replica applies it.
func reshaping(m *placement.Map, id shard.ID) bool {
	o := m.Operator(id)
	return o != nil && o.Kind != placementpb.OperatorKind_MOVE
}
