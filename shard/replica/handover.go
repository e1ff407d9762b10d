package replica

import (
	"context"
	"fmt"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// handOverPatience bounds how long a handover may take.
	handOverPatience = 2 * time.Second
	// heirPatience bounds how long writes wait for the heir, who had caught up just before,
	// to lead.
	heirPatience = 200 * time.Millisecond
	// succeedPause is between two looks of an heir at how far it has come.
	succeedPause = time.Millisecond
)

// Heir is the replica that is to lead next, wherever it runs. Replica is one.
type Heir interface {
	// CatchUp returns when it has applied everything that was committed before the call.
	CatchUp(ctx context.Context) error
	// Succeed makes it lead, and returns when it does.
	Succeed(ctx context.Context, h Handover) error
}

// Handover is sent by a leader that proposes nothing until another leads.
type Handover struct {
	Term    uint64 // in which it leads
	Applied uint64 // the last entry that it has applied
	Last    uint64 // the last one of its log
}

// HandOver makes another replica lead, and returns when one does. Only when the heir has
// caught up does the leader stop proposing (P8); what comes from then on waits here,
// certainly not proposed, and then goes to the new leader. Before that the leader ends its
// reign, or leases would get their whole time again with each new leader (L9).
//
// The heir itself stands for election as soon as it can win: Raft's own transfer is refused
// by an heir that knows of a committed entry which it has not applied, as there always is one under
// load, and then refuses proposals until an election timeout has passed.
func (r *Replica) HandOver(ctx context.Context, heir Heir) error {
	fail := func(err error) error { return fmt.Errorf("hand shard %d over: %w", r.id, err) }
	ctx, cancel := context.WithTimeout(ctx, handOverPatience)
	defer cancel()
	if err := heir.CatchUp(ctx); err != nil {
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
	paused := time.Now()
	if err := r.notLeading(); err != nil {
		return fail(err)
	}
	last, err := r.host.LogEnds(r.id)
	if err != nil {
		return fail(err)
	}
	succeeded := make(chan error, 1)
	go func() {
		soon, done := context.WithTimeout(ctx, heirPatience)
		defer done()
		applied := r.View().Applied
		// What is applied is in the log, but Raft may tell its reader of it a moment later.
		succeeded <- heir.Succeed(soon, Handover{Term: r.Term(), Applied: applied, Last: max(last, applied)})
	}()
	for {
		if leader, _ := r.host.Leader(r.id); leader != 0 && leader != r.replicaID {
			r.host.cfg.Metrics.handovers.Observe(time.Since(paused).Seconds())
			return nil
		}
		select {
		case <-r.proposer.leaders: // nobody else looks while nothing is proposed
		case err := <-succeeded:
			if err != nil {
				return fail(err)
			}
			succeeded = nil // and this replica hears of it soon
		case <-ctx.Done():
			return fail(ctx.Err())
		}
	}
}

// Succeed implements Heir. Raft may refuse as long as not everything committed is applied.
func (r *Replica) Succeed(ctx context.Context, h Handover) error {
	if err := r.waitView(ctx, func(v shard.View) bool { return v.Applied >= h.Applied }); err != nil {
		return fmt.Errorf("lead shard %d: %w", r.id, err)
	}
	return r.host.Succeed(ctx, Held{r.id, r.replicaID}, h)
}

// Succeed has a replica of this node lead instead of one that hands over, and returns when it does. It stands for
// election once its log has all that the leader's has, again while Raft refuses because not all of it that is
// committed is applied, and only in that leader's term (P11).
func (h *Host) Succeed(ctx context.Context, heir Held, o Handover) error {
	fail := func(err error) error { return fmt.Errorf("lead shard %d: %w", heir.Shard, err) }
	for {
		leader, term := h.Leader(heir.Shard)
		switch last, err := h.LogEnds(heir.Shard); {
		case err != nil:
			return fail(err)
		case leader == heir.Replica:
			return nil
		case leader != 0 && term != o.Term:
			return fail(fmt.Errorf("replica %d leads in another term than the one that hands over: %w", leader, shard.ErrUnavailable))
		case leader != 0 && last >= o.Last:
			h.stand([]Held{heir})
		}
		select {
		case <-time.After(succeedPause):
		case <-ctx.Done():
			return fail(context.Cause(ctx))
		}
	}
}

// LogEnds is the last index of the log of this node's replica.
func (h *Host) LogEnds(id shard.ID) (uint64, error) {
	log, err := h.nh.GetLogReader(uint64(id))
	if err != nil {
		return 0, fmt.Errorf("look at the log of shard %d: %w: %w", id, shard.ErrUnavailable, err)
	}
	_, last := log.GetRange()
	return last, nil
}
