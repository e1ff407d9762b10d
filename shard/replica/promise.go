package replica

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// promise is a request that no revision up to floor be assigned any more.
type promise struct {
	epoch uint64
	floor shard.Revision
	asked time.Time
	// done receives what was applied here when the promise was given: a replica that has applied as much may rely on
	// the promise. It must not block.
	done func(shard.View, error)
}

// Promise asks the shard to assign no revision up to floor any more, and calls done exactly once,
// from any goroutine, with what the replica had applied when that was promised: the promise is
// valid from there on. done must not block. Only a leader promises.
func (r *Replica) Promise(epoch uint64, floor shard.Revision, done func(shard.View, error)) {
	if err := r.notLeading(); err != nil {
		done(shard.View{}, err)
		return
	}
	r.proposer.promises.ask(promise{epoch, floor, time.Now(), done})
}

// Heed tells this replica's watches that the shard has promised floor, as of a Raft index. It waits
// until the replica has applied that index.
func (r *Replica) Heed(ctx context.Context, floor shard.Revision, index uint64) error {
	if err := r.waitView(ctx, func(shard.View) bool { return r.machine.Heed(floor, index) }); err != nil {
		return fmt.Errorf("shard %d promised revision %d as of index %d: %w", r.id, floor, index, err)
	}
	return nil
}

// promises are what a proposer has promised without a log entry, so that watches of many shards need not wait for an
// entry in each of them for every event.
//
// The proposer may promise up to the end of its own reservation (shard.R5), once the replica has applied the
// reservation's entry. The log binds all other proposers; this one binds itself (P12): it stamps above what it has
// promised, and promises nothing that a batch in flight could still be assigned. A batch that was given up on may be
// applied at any time. After one, the proposer forgets its reservation, and its next write ends that reservation, as
// anybody's batch would.
type promises struct {
	id          shard.ID // immutable, like everything up to mu
	node        shard.NodeID
	incarnation uint64
	source      RevisionSource
	view        func() shard.View
	propose     func(*shardpb.Command, func(shard.Result))
	knobs       Knobs
	metrics     *Metrics

	mu struct {
		sync.Mutex
		// given is the highest revision promised.
		given shard.Revision
		// reservation is the batch that made the reservation in use; 0 if none. made is the last batch that asked for
		// a reservation and may not have been applied.
		reservation, made uint64
		asking            bool // a reservation is being proposed
		// minting is the stamp of the batch in flight that can assign revisions; 0 if there is none.
		minting shard.Tick
		waiting []promise
	}
}

// launch stamps a batch that is about to be proposed, and returns the reservation number to put into it.
func (p *promises) launch(sequence uint64, batch []pending) (stamp shard.Tick, reservation uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if stamp, err = p.source.Stamp(); err != nil {
		return 0, 0, err
	}
	stamp = max(stamp, p.mu.given.Tick()+1)
	if p.holds(p.view()) {
		reservation = p.mu.reservation
	}
	for _, w := range batch {
		if w.cmd.Kind != shardpb.Kind_CLOSE {
			p.mu.minting = stamp
		} else if w.cmd.Reserve > 0 {
			p.mu.made = sequence
		}
	}
	return stamp, reservation, nil
}

// landed ends what launch began. lost means that the batch may still be applied.
func (p *promises) landed(lost bool) {
	p.mu.Lock()
	p.mu.minting = 0
	if lost {
		p.mu.reservation, p.mu.made = 0, 0
	}
	p.mu.Unlock()
	p.keep()
}

// holds reports whether the view's reservation belongs to this proposer. mu is held.
func (p *promises) holds(v shard.View) bool {
	s := v.Reserved
	if s == nil || s.Node != p.node || s.Incarnation != p.incarnation {
		return false
	}
	if s.Sequence == p.mu.made {
		p.mu.reservation, p.mu.made = p.mu.made, 0
	}
	return s.Sequence == p.mu.reservation
}

// ask calls w.done once floor is promised, or cannot be.
func (p *promises) ask(w promise) {
	p.mu.Lock()
	p.mu.waiting = append(p.mu.waiting, w)
	p.mu.Unlock()
	p.keep()
}

// keep gives the promises that can be given, and reserves what the others need.
func (p *promises) keep() {
	p.mu.Lock()
	view := p.view()
	var kept, refused []promise
	rest := p.mu.waiting[:0]
	for _, w := range p.mu.waiting {
		switch {
		case view.Descriptor == nil || view.Descriptor.Epoch != w.epoch:
			refused = append(refused, w)
		case view.Floor >= w.floor || p.give(view, w.floor):
			kept = append(kept, w)
		default:
			rest = append(rest, w)
		}
	}
	clear(p.mu.waiting[len(rest):])
	p.mu.waiting = rest
	reserve := p.reserve(view, len(kept) > 0)
	p.mu.Unlock()
	for _, w := range kept {
		p.metrics.promised.Observe(time.Since(w.asked).Seconds())
		w.done(view, nil)
	}
	for _, w := range refused {
		w.done(view, view.WrongShard(p.id))
	}
	if reserve != nil {
		p.metrics.reservations.Inc()
		p.propose(reserve, p.reserved)
	}
}

// give promises floor if that is possible now: the view has a reservation of this proposer that reaches floor, and no
// batch in flight could still be assigned a revision up to it. mu is held.
func (p *promises) give(v shard.View, floor shard.Revision) bool {
	if !p.holds(v) || v.Reserved.Until < floor {
		return false
	}
	if p.mu.minting != 0 && p.mu.minting.Revision() <= floor && !p.knobs.HastyPromises {
		return false
	}
	p.mu.given = max(p.mu.given, floor)
	return true
}

// reserve makes the command that reserves what the waiting promises need and closes the shard for them. It returns
// nil if nothing is needed or such a command is in flight. While promises are in use, a reservation is renewed before
// it runs out, so that nobody has to wait for a new one. mu is held.
func (p *promises) reserve(v shard.View, busy bool) *shardpb.Command {
	until := shard.Revision(0)
	if p.holds(v) {
		until = v.Reserved.Until
	}
	wanted := shard.Revision(0)
	for _, w := range p.mu.waiting {
		if w.floor > until {
			wanted = max(wanted, w.floor)
		}
	}
	end := max(wanted, (p.source.Now() + shard.ReserveAhead).Revision()) // R6
	renew := busy && until > 0 && end-until >= (shard.ReserveAhead/2).Revision()
	if p.mu.asking || wanted == 0 && !renew {
		return nil
	}
	p.mu.asking = true
	return &shardpb.Command{
		Kind: shardpb.Kind_CLOSE, Epoch: v.Descriptor.Epoch, Revision: int64(wanted), Reserve: int64(end),
	}
}

// reserved handles the result of reserve's command.
func (p *promises) reserved(result shard.Result) {
	p.mu.Lock()
	p.mu.asking = false
	var failed []promise
	if result.Err != nil {
		failed, p.mu.waiting = p.mu.waiting, nil
	}
	p.mu.Unlock()
	for _, w := range failed {
		w.done(shard.View{}, result.Err)
	}
	p.keep()
}
