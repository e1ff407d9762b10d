package replica

import (
	"context"
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
// certainly not proposed, and then goes to the new leader. Before that the leader ends its
// reign, or leases would get their whole time again with each new leader (L9).
func (r *Replica) HandOver(ctx context.Context, heir shard.ReplicaID, caughtUp func(context.Context) error) error {
	fail := func(err error) error {
		return fmt.Errorf("hand shard %d over to replica %d: %w", r.id, heir, err)
	}
	ctx, cancel := context.WithTimeout(ctx, handOverPatience)
	defer cancel()
	if err := caughtUp(ctx); err != nil {
		return fail(err)
	}
	resume, err := r.abdicate(ctx)
	if err != nil {
		return fail(err)
	}
	defer resume()
	select {
	case r.proposer.turn <- struct{}{}:
	case <-ctx.Done():
		return fail(ctx.Err())
	}
	defer func() { <-r.proposer.turn }()
	if err := r.notLeading(); err != nil {
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
