package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/lease"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// abdicate ends this leader's reign, and writes what leases still have for the next one
// (L9). It is for a leader that hands over, or gives leases another home. Until resume is
// called no other reign begins here, which would take for itself what was left:
// requests about leases wait, and after that begin it, or go to whoever leads then. Writes
// go on.
//
// That a will certainly was not written is no reason to stay: then the next reign gives
// leases their whole time.
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

// stopMeasuring returns who measured leases in this leader's reign, nil for nobody, and
// holds up the next. A reign that is about to begin, with what was left to it, begins first.
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

func (r *Replica) letReign(held *reignStart) {
	r.reigning.Lock()
	defer r.reigning.Unlock()
	r.reigning.start, held.err = nil, r.notReigning()
	close(held.done)
}
