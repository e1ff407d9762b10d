package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/lease"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// abdicate ends this leader's reign and writes down the remaining time of its leases for the next one (L9). A leader
// calls it before it hands over, or before its leases get a new home. Until resume is called no other reign begins
// here, because it would itself take over the times that were written down. Requests about leases wait until then, and
// begin a new reign or go to the new leader. Writes continue.
//
// If it is certain that the times were not written, the handover goes on all the same: the next reign then gives
// leases their whole TTL.
func (r *Replica) abdicate(ctx context.Context) (resume func(), err error) {
	d := r.View().Descriptor
	if d == nil || r.machine.Leases().Len() == 0 || r.host.cfg.Knobs.ForgetWills {
		return func() {}, nil
	}
	l, resume, err := r.stopMeasuring(ctx)
	if l == nil || err != nil {
		return resume, err
	}
	body, err := (&shardpb.LeaseCommand{Will: l.Will(r.host.now())}).MarshalVT()
	if err == nil {
		err = r.do(ctx, &shardpb.Command{Kind: shardpb.Kind_LEASE_BEQUEATH, Epoch: d.Epoch, Body: body})
	}
	if errors.Is(err, shard.ErrUnknownOutcome) {
		resume()
		return nil, fmt.Errorf("leave leases of shard %d to the next reign: %w", r.id, err)
	}
	return resume, nil
}

// stopMeasuring returns the lessor that measured leases in this leader's reign, or nil if there is none, and lets no
// other reign begin until resume is called. If a reign is just beginning, stopMeasuring waits until it has begun.
func (r *Replica) stopMeasuring(ctx context.Context) (l *lease.Lessor, resume func(), err error) {
	held := &reignStart{done: make(chan struct{})}
	for {
		r.reigning.Lock()
		start := r.reigning.start
		if start == nil {
			l, r.reigning.lessor, r.reigning.start = r.reigning.lessor, nil, held
		}
		r.reigning.Unlock()
		if start == nil {
			return l, func() { r.letReign(held) }, nil
		}
		select {
		case <-start.done:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("end the reign over leases of shard %d: %w", r.id, context.Cause(ctx))
		}
	}
}

// letReign allows the next reign to begin, and wakes the requests that wait for it.
func (r *Replica) letReign(held *reignStart) {
	r.reigning.Lock()
	defer r.reigning.Unlock()
	r.reigning.start, held.err = nil, r.notReigning()
	close(held.done)
}
