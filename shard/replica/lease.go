package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/lease"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// reignPatience bounds how long a request waits for the reign of a new leader to begin, which takes
// a write to the log. The caller may retry.
const reignPatience = time.Second

// reigning is a leader's view of the leases at home here: how long they live. It starts afresh with each term, so
// that leases do not suffer from a time without a leader.
//
// An answer about a lease is valid if, after the request was accepted, a read barrier was taken, and then the reign
// was still the last one and the lessor still the one that measures it. If another reign had begun before the request
// was accepted, the barrier would have brought the entry that says so. If another reign begins later, a lease ends no
// earlier than was promised (L3), for one of two reasons:
//
//   - The later reign gives the lease its whole TTL, counted from after the request was accepted.
//   - The earlier reign has left a will. Everything promised in that reign was promised by a single lessor: the
//     reign's number was given to one proposal, and only its proposer has the lessor in memory. The will is that
//     lessor's last act (L10). A renewal accepted before it is in the will, acknowledged or not. A later renewal was
//     not accepted, and whoever returns from the barrier finds the lessor gone. The time left in the will is counted
//     from the beginning of the next reign, so any time in between only extends it.
//
// A will that is committed after another reign has begun is void, because leases may have been renewed in that reign.
type reigning struct {
	sync.Mutex
	lessor *lease.Lessor // nil unless this replica began the last reign that is known here
	term   uint64        // the term in which it did
	start  *reignStart   // in progress, or held up by abdicate; nil if none
}

// reignStart is an attempt to begin a reign.
type reignStart struct {
	done chan struct{} // closed after err is set
	err  error
}

// LeaseStatus is what a lease's home knows about it.
type LeaseStatus struct {
	ID int64
	// TTL is the remaining time; it is negative when there is no such lease.
	TTL time.Duration
	// Granted is the whole TTL in seconds.
	Granted int64
	// Spans are the spans that may contain attached keys.
	Spans []shard.Span
}

// KeepAlive renews leases at their home and returns the TTL of each in seconds: 0 if there is no
// such lease, or not any more. Only a leader answers; NotLeaderError and ErrUnavailable promise
// nothing, and the caller retries.
func (r *Replica) KeepAlive(ctx context.Context, ids []int64) (ttls []int64, err error) {
	reign, err := r.reign(ctx)
	if err != nil {
		return nil, fmt.Errorf("renew %d leases: %w", len(ids), err)
	}
	r.reigning.Lock()
	if l := r.reigning.lessor; l != nil && l.Reign() == reign {
		now := r.host.now()
		for _, id := range ids {
			l.Renew(id, now)
		}
	}
	r.reigning.Unlock()
	// The order matters: renew first, then establish that the renewal counts. See reigning.
	living, err := r.statusAfterBarrier(ctx, reign, ids)
	if err != nil {
		return nil, fmt.Errorf("renew %d leases: %w", len(ids), err)
	}
	r.host.cfg.Metrics.leaseRenewals.Add(float64(len(living)))
	ttls = make([]int64, len(ids))
	for i, id := range ids { // living has the living leases in the same order
		if len(living) > 0 && living[0].ID == id {
			ttls[i], living = living[0].Granted, living[1:]
		}
	}
	return ttls, nil
}

// LeaseStatus returns the remaining time of a lease, at its home. It fails like KeepAlive.
func (r *Replica) LeaseStatus(ctx context.Context, id int64) (LeaseStatus, error) {
	reign, err := r.reign(ctx)
	if err != nil {
		return LeaseStatus{}, fmt.Errorf("look at lease %x: %w", id, err)
	}
	living, err := r.statusAfterBarrier(ctx, reign, []int64{id})
	if err != nil {
		return LeaseStatus{}, fmt.Errorf("look at lease %x: %w", id, err)
	}
	if len(living) == 0 {
		return LeaseStatus{ID: id, TTL: -1}, nil
	}
	return living[0], nil
}

// statusAfterBarrier returns the status of those of the leases that live, in the order of ids. All of them must be at
// home here.
func (r *Replica) statusAfterBarrier(ctx context.Context, reign uint64, ids []int64) ([]LeaseStatus, error) {
	return r.livingAfterBarrier(ctx, reign, func(view shard.View, l *lease.Lessor) ([]int64, error) {
		for _, id := range ids {
			if !view.Descriptor.Span.Contains(shard.HomeKey(id)) {
				return nil, view.WrongShard(r.id)
			}
		}
		return ids, nil
	})
}

// Leases lists the living leases whose home this shard is, the first to expire first. It fails like
// KeepAlive.
func (r *Replica) Leases(ctx context.Context) ([]LeaseStatus, error) {
	reign, err := r.reign(ctx)
	var list []LeaseStatus
	if err == nil {
		list, err = r.livingAfterBarrier(ctx, reign, func(_ shard.View, l *lease.Lessor) ([]int64, error) {
			return l.Living(r.host.now()), nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	return list, nil
}

// livingAfterBarrier returns the status of the leases that ids names, omitting those that do not live, once it is
// certain that the reign counts.
func (r *Replica) livingAfterBarrier(ctx context.Context, reign uint64, ids func(shard.View, *lease.Lessor) ([]int64, error)) ([]LeaseStatus, error) {
	if _, err := r.Barrier(ctx); err != nil {
		return nil, err
	}
	r.reigning.Lock()
	defer r.reigning.Unlock()
	// This is not the barrier's view: a lease that has since left with its keys must not be reported as gone. The
	// lessor is updated after the view.
	view := r.View()
	if view.Descriptor == nil {
		return nil, view.Absent(r.id)
	}
	table := r.machine.Leases()
	l := r.reigning.lessor
	if l == nil || l.Reign() != reign || table.Reign() != reign {
		return nil, r.notReigning()
	}
	wanted, err := ids(view, l)
	if err != nil {
		return nil, err
	}
	out := make([]LeaseStatus, 0, len(wanted))
	now := r.host.now()
	for _, id := range wanted {
		left, ok := l.Remaining(id, now)
		// The table may be ahead of the lessor, which learns of an Update after it.
		if rec := table.Record(id); ok && rec != nil && !rec.Revoking {
			out = append(out, LeaseStatus{ID: id, TTL: left, Granted: rec.TTL, Spans: rec.Spans})
		}
	}
	return out, nil
}

// LeaseKeys lists the keys of this shard that are attached to the lease, in order, as
// applied here.
func (r *Replica) LeaseKeys(id int64) ([][]byte, error) { return r.machine.LeaseKeys(id) }

// DueLeases returns expired leases that a leader must revoke, at most limit of them, the first
// expired first. It does not wait: a leader whose reign has not begun begins it, and returns none.
func (r *Replica) DueLeases(limit int) []lease.Due {
	if !r.Leads() || r.View().Descriptor == nil || r.machine.Leases().Len() == 0 {
		return nil
	}
	if _, start := r.reignOrStart(); start != nil {
		return nil
	}
	r.reigning.Lock()
	defer r.reigning.Unlock()
	if r.reigning.lessor == nil { // it ended just now
		return nil
	}
	due := r.reigning.lessor.Due(r.host.now(), limit)
	r.host.cfg.Metrics.leasesDue.Add(float64(len(due)))
	return due
}

// reign returns the number of this leader's reign, and waits for it to begin.
func (r *Replica) reign(ctx context.Context) (uint64, error) {
	if !r.Leads() {
		return 0, r.notReigning()
	}
	reign, start := r.reignOrStart()
	if start == nil {
		return reign, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, reignPatience, shard.ErrUnavailable)
	defer cancel()
	select {
	case <-start.done:
		if start.err != nil {
			return 0, start.err
		}
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for shard %d to measure leases: %w", r.id, context.Cause(ctx))
	}
	if reign, start = r.reignOrStart(); start != nil {
		return 0, r.notReigning()
	}
	return reign, nil
}

// notReigning returns a certain failure: nothing was renewed.
func (r *Replica) notReigning() error {
	if !r.Leads() {
		return &shard.NotLeaderError{Shard: r.id, Leader: r.LeaderNode()}
	}
	return fmt.Errorf("shard %d measures leases anew: %w", r.id, shard.ErrUnavailable)
}

// reignOrStart returns the reign of this term, or the attempt to begin it.
func (r *Replica) reignOrStart() (uint64, *reignStart) {
	term := r.Term()
	r.reigning.Lock()
	l, start := r.reigning.lessor, r.reigning.start
	if l != nil && r.reigning.term == term && l.Reign() == r.machine.Leases().Reign() {
		r.reigning.Unlock()
		return l.Reign(), nil
	}
	first := start == nil
	if first {
		start = &reignStart{done: make(chan struct{})}
		r.reigning.start = start
	}
	r.reigning.Unlock()
	if first {
		// Not on the worker that delivers the result (P4), because there may be very many leases.
		r.proposeReign(func(res shard.Result) { go r.beginReign(start, term, res) })
	}
	return 0, start
}

func (r *Replica) proposeReign(done func(shard.Result)) {
	view := r.View()
	if view.Descriptor == nil {
		done(shard.Result{Err: view.Absent(r.id)})
		return
	}
	r.Propose(&shardpb.Command{Kind: shardpb.Kind_LEASE_REIGN, Epoch: view.Descriptor.Epoch}, done)
}

// beginReign completes an attempt. Leases are measured from when REIGN was applied, or later. They get the time that
// the last reign left them, or else their whole TTL plus an election timeout, because clients have to find the new
// leader first.
func (r *Replica) beginReign(start *reignStart, term uint64, res shard.Result) {
	r.reigning.Lock()
	defer r.reigning.Unlock()
	r.reigning.start = nil
	if start.err = certain(res.Err); start.err == nil {
		answer := res.Response.(*shardpb.LeaseAnswer)
		raft := r.host.cfg.Raft
		extend := time.Duration(raft.ElectionTicks) * raft.TickInterval
		if r.host.cfg.Knobs.ForgetTTLs {
			extend = -time.Hour // more than any test grants
		}
		r.reigning.lessor = lease.Reign(answer.Reign, r.machine.Leases().Records(), answer.Will, r.host.now(), extend)
		r.reigning.term = term
	}
	close(start.done)
}

// certain turns an unknown outcome of REIGN into an error after which the request that waited for it may be repeated:
// the request itself has changed nothing.
func certain(err error) error {
	if errors.Is(err, shard.ErrUnknownOutcome) {
		return fmt.Errorf("begin to measure leases: %w", shard.ErrUnavailable)
	}
	return err
}

// noteLeases tells the lessor what an Update has changed, before anybody learns of its results.
func (r *Replica) noteLeases() {
	changes := r.machine.LeaseChanges()
	r.reigning.Lock()
	defer r.reigning.Unlock()
	l := r.reigning.lessor
	if l == nil {
		return
	}
	if l.Reign() != r.machine.Leases().Reign() { // another leader's reign has begun
		r.reigning.lessor = nil
		return
	}
	now := r.host.now()
	for _, c := range changes {
		l.Changed(c.ID, c.Record, now)
	}
}

// endReign is called when all leases were replaced at once.
func (r *Replica) endReign() {
	r.reigning.Lock()
	defer r.reigning.Unlock()
	r.reigning.lessor = nil
}
