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

// A log is cut behind the split or merge that gave its shard the keys it has: whoever began
// with what is before would act on keys that are another shard's by now. The controller has
// it done before the operator ends; a node that was away then cuts its own.

const (
	// weanPatience is how long an operator waits for the logs of nodes that do not answer.
	weanPatience = 5 * time.Second
	// weanTimeout bounds one attempt of a node to cut its own.
	weanTimeout = 5 * time.Second
)

// wean has the logs of most replicas of a shard cut behind what gave it its epoch.
func (c *controller) wean(ctx context.Context, m *placement.Map, d *shard.Descriptor) error {
	if err := c.arrive(ctx, m, d); err != nil {
		return err
	}
	return c.orderAll(ctx, m, d, weanPatience, &routerpb.DirectRequest{
		Shard: uint64(d.ID), Order: &routerpb.DirectRequest_Wean{Wean: &routerpb.Wean{}},
	}).majority()
}

// arrive waits, not for long, until all replicas that answer have applied it: one that has
// not when the logs are cut would have to be sent all the data.
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

// wean cuts the log of a replica of this node behind an operator that ended without it.
func (a *agent) wean(ctx context.Context, r *replica.Replica) {
	ctx, cancel := context.WithTimeout(ctx, weanTimeout)
	defer cancel()
	m, err := a.node.meta.barrier(ctx)
	if err == nil && reshaping(m, r.ID()) { // this node's copy of the table was behind
		return
	}
	if err == nil {
		err = r.Wean(ctx)
	}
	if err != nil {
		a.node.log.Debug("cutting a log", "shard", r.ID(), "error", err)
	}
}

// reshaping reports whether a split or merge of the shard is under way: then its log may be all that brings it
// again after a crash (P14 of package replica). The table has heard of it before any replica.
func reshaping(m *placement.Map, id shard.ID) bool {
	o := m.Operator(id)
	return o != nil && o.Kind != placementpb.OperatorKind_MOVE
}
