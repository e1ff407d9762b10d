package replica

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

const (
	// batchCommandsMax bounds how many commands apply handles at a time.
	batchCommandsMax = 512
	// batchBytesMax bounds a log entry. A single larger command is still proposed, alone.
	batchBytesMax = 1 << 20
	// lostPatience is how long a proposal waits for its outcome after its proposer has stopped leading. Entries that
	// were or will be committed are mostly applied by then; an entry that was lost with the leadership would hold up
	// all that follow (P7).
	lostPatience = 500 * time.Millisecond
	// queueCommandsMax and queueBytesMax bound what may wait: about half a second of a busy shard.
	queueCommandsMax = 16 << 10
	queueBytesMax    = 64 << 20
)

// RevisionSource stamps commands. hlc.Hybrid is one.
type RevisionSource interface {
	Stamp() (shard.Tick, error)
	// Now is the clock's reading, regardless of revisions that were seen.
	Now() shard.Tick
	Observe(shard.Revision)
}

// pending is a command that waits for its outcome.
type pending struct {
	cmd  *shardpb.Command
	done func(shard.Result)
}

// proposer turns commands into log entries. While an entry is in flight, everything that arrives is collected for the
// next one. So entries grow with load, and a lone command does not wait for others. Only when the machine is short of
// CPU does a batch wait for more commands (tempo).
type proposer struct {
	entrance *entrance // immutable, like everything up to mu
	shardID  shard.ID
	nodeID   shard.NodeID
	incarn   uint64
	session  *client.Session
	timeout  time.Duration
	slack    time.Duration // ticksSlack
	metrics  *Metrics
	// sequence is the Host's, shared by all its proposers (P1).
	sequence *atomic.Uint64
	// encodings is the Host's too.
	encodings *encodings
	knobs     Knobs
	view      func() shard.View
	// refused returns nil while this replica leads, and otherwise an error that names the leader.
	refused func() error
	// leaders receives, coalesced, when the group's leader has changed.
	leaders chan struct{}
	meter   *meter
	// turn holds one element while a batch, or a handover of leadership, is in progress (P8).
	turn chan struct{}
	// overdue belongs to whoever has the turn.
	overdue *time.Timer
	// promises bind the stamps given here.
	promises promises
	tempo    *tempo
	muster   *muster // the Host's, like tempo
	convoy   *convoy // the Host's, too
	// eager: the group's leader has changed, so its keys were unavailable, and the next batch starts at once. A group that
	// is new gets its first leader.
	eager atomic.Bool
	// full receives when a full batch is waiting, or something that presses.
	full chan struct{}

	mu struct {
		sync.Mutex
		queue   []pending
		queued  int  // bytes of the bodies in queue
		pressed int  // commands in queue that press (presses)
		running bool // a goroutine is draining queue
		// flights are proposed batches without an outcome. The result (from Update) and the failure (from the
		// request) race: whichever removes the flight reports the outcome (P2).
		flights map[uint64][]pending
	}
}

func (p *proposer) submit(cmd *shardpb.Command, done func(shard.Result)) {
	p.mu.Lock()
	if len(p.mu.queue) >= queueCommandsMax || p.mu.queued > 0 && p.mu.queued+len(cmd.Body) > queueBytesMax {
		p.mu.Unlock()
		done(shard.Result{Err: fmt.Errorf("propose to shard %d: %w", p.shardID, shard.ErrOverloaded)})
		return
	}
	p.mu.queue = append(p.mu.queue, pending{cmd, done})
	p.mu.queued += len(cmd.Body)
	if presses(cmd.Kind) {
		p.mu.pressed++
	}
	p.muster.enter()
	start, full := !p.mu.running, len(p.mu.queue) == batchCommandsMax || presses(cmd.Kind)
	p.mu.running = true
	p.mu.Unlock()
	if full {
		select {
		case p.full <- struct{}{}:
		default:
		}
	}
	if start {
		go p.drain()
	}
}

// drain proposes batch after batch until nothing waits.
func (p *proposer) drain() {
	for more := true; more; {
		p.pause()
		p.turn <- struct{}{}
		var batch []pending
		if batch, more = p.next(); more {
			if p.knobs != (Knobs{}) {
				batch = p.sabotage(batch)
			}
			p.tempo.took(len(batch))
			p.meter.wrote(batch)
			p.round(p.launch(batch), batch)
		}
		<-p.turn
	}
}

// pause returns when the next batch may start (P13).
func (p *proposer) pause() {
	spacing := p.tempo.interval(time.Now())
	if eager := p.eager.Swap(false); eager || spacing == 0 {
		return
	}
	tick := p.muster.next(spacing)
	p.metrics.held.Inc()
	for !p.isFull() {
		select {
		case <-tick:
			return
		case <-p.full: // full now, or already before the last batch
		}
	}
}

func (p *proposer) isFull() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.mu.queue) >= batchCommandsMax || p.mu.pressed > 0
}

// presses reports whether keys or leases are unavailable until a command of this kind is carried out.
func presses(k shardpb.Kind) bool {
	switch k {
	case shardpb.Kind_INIT, shardpb.Kind_FREEZE, shardpb.Kind_THAW, shardpb.Kind_SUBSUME, shardpb.Kind_LEASE_BEQUEATH:
		return true
	default:
		return false
	}
}

// next takes what goes into one log entry. more is false if nothing waits; then the next submit has to start a drain.
func (p *proposer) next() (batch []pending, more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, size := 0, 0
	for n < len(p.mu.queue) && n < batchCommandsMax {
		size += len(p.mu.queue[n].cmd.Body) + 32
		if n > 0 && size > batchBytesMax {
			break
		}
		n++
	}
	if n == 0 {
		p.mu.queue = nil
		p.mu.running = false
		return nil, false
	}
	batch = p.mu.queue[:n:n]
	p.mu.queue = p.mu.queue[n:]
	for i := range batch {
		p.mu.queued -= len(batch[i].cmd.Body)
		if presses(batch[i].cmd.Kind) {
			p.mu.pressed--
		}
	}
	return batch, true
}

// launch gives the batch its number. From now on its results can be matched to it.
func (p *proposer) launch(batch []pending) uint64 {
	sequence := p.sequence.Add(1)
	p.mu.Lock()
	p.mu.flights[sequence] = batch
	p.mu.Unlock()
	return sequence
}

// inFlight reports whether the batch has no outcome yet.
func (p *proposer) inFlight(sequence uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.mu.flights[sequence]
	return ok
}

// leaderChanged never blocks: it runs on a worker shared by all groups (P4).
func (p *proposer) leaderChanged() {
	p.eager.Store(true)
	select {
	case p.leaders <- struct{}{}:
	default:
	}
}

// round proposes one batch, and returns when its outcome is known or it is given up on.
func (p *proposer) round(sequence uint64, batch []pending) {
	// Commands that arrived while this replica led must not be proposed by a follower: Raft would forward them, and
	// not say if they are lost.
	if err := p.refused(); err != nil {
		p.fail(sequence, err)
		return
	}
	stamp, reservation, err := p.promises.launch(sequence, batch)
	if err != nil {
		p.fail(sequence, fmt.Errorf("propose to shard %d: %w", p.shardID, err))
		return
	}
	lost := false
	defer func() { p.promises.landed(lost) }()
	entry := &shardpb.Batch{Format: 1, NodeId: uint64(p.nodeID), Sequence: sequence, Incarnation: p.incarn,
		Reservation: reservation, Commands: make([]*shardpb.Command, len(batch))}
	for i := range batch {
		batch[i].cmd.Stamp = int64(stamp)
		entry.Commands[i] = batch[i].cmd
	}
	data, err := p.encodings.encode(entry)
	if err != nil {
		p.fail(sequence, fmt.Errorf("encode a batch for shard %d: %w", p.shardID, err))
		return
	}
	started := time.Now()
	rs, err := p.propose(*data, slices.ContainsFunc(batch, func(w pending) bool { return presses(w.cmd.Kind) }))
	p.encodings.release(data) // the log entry has a copy
	if err != nil {
		// Refused before it reached the log.
		p.fail(sequence, fmt.Errorf("propose to shard %d: %w: %w", p.shardID, refusal(err), err))
		return
	}
	result, why := p.await(rs)
	if why != nil {
		lost = true
		p.fail(sequence, fmt.Errorf("shard %d %w: %w", p.shardID, why, shard.ErrUnknownOutcome))
		return // rs is not released, because its result may still come
	}
	switch {
	case result.Completed():
		took := time.Since(started)
		p.metrics.proposals.Observe(took.Seconds())
		p.meter.committed(took)
		p.metrics.batchCommands.Observe(float64(len(batch)))
		// Update has delivered the results. A batch that is still in flight was applied as part of a snapshot that
		// overtook it, so its results are lost (P2).
		if p.inFlight(sequence) {
			p.fail(sequence, fmt.Errorf("shard %d: %w", p.shardID, shard.ErrUnknownOutcome))
		}
	case result.Dropped():
		p.fail(sequence, fmt.Errorf("shard %d dropped the proposal: %w", p.shardID, shard.ErrUnavailable))
	default: // the replica is stopping
		lost = true
		p.fail(sequence, fmt.Errorf("shard %d: %w", p.shardID, shard.ErrUnknownOutcome))
	}
	rs.Release()
}

// propose gives an entry to Raft. While batches wait for common ticks it does so together with those of other shards, unless something in
// the entry presses.
func (p *proposer) propose(data []byte, presses bool) (rs *dragonboat.RequestState, err error) {
	propose := func() { rs, err = p.entrance.propose(p.session, data, p.timeout+p.slack) }
	if !presses && p.tempo.spacing.Load() > 0 {
		p.convoy.enter(propose)
	} else {
		propose()
	}
	return rs, err
}

var (
	errLeaderLost = errors.New("lost its leader")
	errOverdue    = errors.New("did not apply it in time")
)

// await returns the proposal's result, or why the proposal was given up on.
func (p *proposer) await(rs *dragonboat.RequestState) (dragonboat.RequestResult, error) {
	p.overdue.Reset(p.timeout)
	defer p.overdue.Stop()
	var lost <-chan time.Time
	for {
		select {
		case result := <-rs.ResultC():
			return result, nil
		case <-p.leaders:
			if lost == nil && p.refused() != nil {
				lost = time.After(lostPatience)
			}
		case <-lost:
			return dragonboat.RequestResult{}, errLeaderLost
		case <-p.overdue.C:
			return dragonboat.RequestResult{}, errOverdue
		}
	}
}

// refusal classifies an error of NodeHost.Propose. All of them are certain.
func refusal(err error) error {
	if err == dragonboat.ErrSystemBusy {
		return shard.ErrOverloaded
	}
	return shard.ErrUnavailable
}

// deliver hands over the results of a batch that Update has applied.
func (p *proposer) deliver(sequence uint64, results []shard.Result) {
	for i, w := range p.take(sequence) {
		w.done(results[i])
	}
}

// fail gives this outcome to every command of the batch that has none yet.
func (p *proposer) fail(sequence uint64, err error) {
	for _, w := range p.take(sequence) {
		w.done(shard.Result{Err: err})
	}
}

func (p *proposer) take(sequence uint64) []pending {
	p.mu.Lock()
	batch := p.mu.flights[sequence]
	delete(p.mu.flights, sequence)
	p.mu.Unlock()
	p.muster.leave(len(batch))
	return batch
}
