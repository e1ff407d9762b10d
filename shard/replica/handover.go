package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// handOverPatience bounds how long a handover may take.
	handOverPatience = 2 * time.Second
	// heirPatience bounds how long writes wait for an heir that is not ready to campaign. That is short, because the heir
	// had caught up just before.
	heirPatience = 200 * time.Millisecond
	// succeedPause is how long an heir waits before it checks again whether it has caught up.
	succeedPause = time.Millisecond
)

// ErrDeclined is an heir's error if it has not campaigned, and will not.
var ErrDeclined = errors.New("the heir does not campaign")

// Heir is the replica that is to lead next, on any node. Replica is one.
type Heir interface {
	// CatchUp returns when the heir has applied everything that was committed before the call.
	CatchUp(ctx context.Context) error
	// Succeed makes the heir the leader, and returns when it is. After any error but ErrDeclined it may become the leader
	// still.
	Succeed(ctx context.Context, h Handover) error
}

// Handover is sent by a leader that proposes nothing until another replica leads.
type Handover struct {
	Term    uint64 // the term in which the sender leads
	Applied uint64 // the last entry that the sender has applied
	Last    uint64 // the last entry of its log
}

// HandOver makes another replica the leader, and returns when there is a new leader. The leader stops proposing only
// once the heir has caught up (P8). Commands that arrive after that wait here, certainly not proposed, and then go to
// the new leader. Before it stops, the leader ends its reign; otherwise every new leader would give leases their
// whole TTL again (L9).
//
// The heir itself campaigns as soon as it can win. Raft's own transfer does not work under load. An heir refuses it
// while it knows of a committed entry that it has not applied, and under load there always is one. The leader would
// then refuse proposals until an election timeout has passed.
//
// An heir that may have campaigned is waited for, even if it does not answer: its votes may only be slow to reach the
// disks, and what is proposed meanwhile would be in the log of a leader who loses office, with an unknown outcome.
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
		applied := r.View().Applied
		// What is applied is in the log, but Raft updates its log reader a moment later, so last may still be smaller.
		succeeded <- heir.Succeed(ctx, Handover{Term: r.Term(), Applied: applied, Last: max(last, applied)})
	}()
	var why error
	for {
		if leader, _ := r.host.Leader(r.id); leader != 0 && leader != r.replicaID {
			r.host.cfg.Metrics.handovers.Observe(time.Since(paused).Seconds())
			return nil
		}
		select {
		case <-r.proposer.leaders: // nobody else looks while nothing is proposed
		case why = <-succeeded:
			if errors.Is(why, ErrDeclined) {
				return fail(why)
			}
			succeeded = nil // this replica will soon hear of the new leader, if there is one
		case <-ctx.Done():
			return fail(errors.Join(ctx.Err(), why))
		}
	}
}

// Succeed implements Heir. It first waits until this replica has applied what the leader had applied, because Raft
// may refuse to campaign while a committed entry is not applied.
func (r *Replica) Succeed(ctx context.Context, h Handover) error {
	soon, cancel := context.WithTimeout(ctx, heirPatience)
	defer cancel()
	if err := r.waitView(soon, func(v shard.View) bool { return v.Applied >= h.Applied }); err != nil {
		return fmt.Errorf("lead shard %d: %w: %w", r.id, ErrDeclined, err)
	}
	return r.host.Succeed(ctx, Held{r.id, r.replicaID}, h)
}

// Succeed makes a replica of this node take over from a leader that hands over, and returns when it leads. The
// replica campaigns only once its log has everything that the leader's has, and only in that leader's term (P11). It
// campaigns again while Raft refuses because some committed entries are not applied yet. If it is not ready to campaign
// within heirPatience it declines.
func (h *Host) Succeed(ctx context.Context, heir Held, o Handover) error {
	stood := false
	fail := func(err error) error {
		if !stood {
			err = fmt.Errorf("%w: %w", ErrDeclined, err)
		}
		return fmt.Errorf("lead shard %d: %w", heir.Shard, err)
	}
	late := time.After(heirPatience)
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
			stood, late = true, nil
			h.heirs.Store(heir.Shard, o.Term)
			h.stand([]Held{heir})
		}
		select {
		case <-time.After(succeedPause):
		case <-late:
			return fail(errors.New("it has not caught up in time"))
		case <-ctx.Done():
			return fail(context.Cause(ctx))
		}
	}
}

// LogEnds returns the last index in the log of this node's replica.
func (h *Host) LogEnds(id shard.ID) (uint64, error) {
	log, err := h.nh.GetLogReader(uint64(id))
	if err != nil {
		return 0, fmt.Errorf("look at the log of shard %d: %w: %w", id, shard.ErrUnavailable, err)
	}
	_, last := log.GetRange()
	return last, nil
}
