package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

// handOverPatience bounds how long writes wait for another leader. Raft gives an attempt
// up after an election timeout, and refuses all proposals until then.
const handOverPatience = 2 * time.Second

// heirPatience bounds how long they wait for the heir, who had caught up just before.
const heirPatience = 200 * time.Millisecond

// HandOver makes another replica lead, and returns when one does. caughtUp is asked twice to
// wait until the heir has applied all that is committed, the second time while nothing is
// proposed (P8): Raft's library has an heir refuse that knows of a committed entry which
// it has not applied, and under load there is always one. What comes meanwhile waits here,
// certainly not proposed, and then goes to the new leader. The only exception is what leases
// still have (L9): otherwise they would get their whole time again with each new leader.
func (r *Replica) HandOver(ctx context.Context, heir shard.ReplicaID, caughtUp func(context.Context) error) error {
	fail := func(err error) error {
		return fmt.Errorf("hand shard %d over to replica %d: %w", r.id, heir, err)
	}
	ctx, cancel := context.WithTimeout(ctx, handOverPatience)
	defer cancel()
	if err := caughtUp(ctx); err != nil {
		return fail(err)
	}
	select {
	case r.proposer.turn <- struct{}{}:
	case <-ctx.Done():
		return fail(ctx.Err())
	}
	defer func() { <-r.proposer.turn }()
	if err := r.notLeading(); err != nil {
		return fail(err)
	}
	if err := r.leaveLeases(); err != nil {
		return fail(err)
	}
	soon, done := context.WithTimeout(ctx, heirPatience)
	defer done()
	if err := caughtUp(soon); err != nil {
		return fail(err)
	}
	if err := r.Yield(heir); err != nil {
		return err
	}
	for {
		if leader, _ := r.host.Leader(r.id); leader != 0 && leader != r.replicaID {
			return nil
		}
		select {
		case <-r.proposer.leaders: // nobody else looks while nothing is proposed
		case <-ctx.Done():
			return fail(ctx.Err())
		}
	}
}

// leaveLeases writes what leases still have, for the next reign. It is for who has the
// proposer's turn. That it certainly could not be written is no reason to go on leading: then
// the next reign gives leases their whole time.
func (r *Replica) leaveLeases() error {
	cmd, err := r.bequeath()
	if cmd == nil || err != nil {
		return err
	}
	done := make(chan shard.Result, 1)
	r.proposer.propose([]pending{{cmd, func(res shard.Result) { done <- res }}})
	if res := <-done; errors.Is(res.Err, shard.ErrUnknownOutcome) {
		return fmt.Errorf("leave leases to the next reign: %w", res.Err)
	}
	return nil
}
