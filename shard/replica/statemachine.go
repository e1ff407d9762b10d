package replica

import (
	"errors"
	"fmt"
	"io"

	"github.com/lni/dragonboat/v4/statemachine"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/lease"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// stateMachine is what dragonboat drives. Any error from it ends the process, so only a failing store may cause one.
type stateMachine struct {
	replica *Replica
	entries []apply.Entry // reused between Updates
	durable uint64        // the applied index when it was last made durable
	begun   bool          // the Sync that dragonboat issues when the replica starts has come, if there is one
	tail    tail          // of the log
	counted bool          // the tail knows what was in the log when the replica started
}

var _ statemachine.IOnDiskStateMachine = (*stateMachine)(nil)

// Open implements IOnDiskStateMachine: the log replays from the returned index. The contents of a reopened engine are
// durable (E7 of package engine), and are a prefix of what was applied.
func (s *stateMachine) Open(<-chan struct{}) (uint64, error) {
	s.secured()
	s.begun = false
	raft := s.replica.host.cfg.Raft
	s.tail, s.counted = tail{max: size{int64(raft.LogEntries), raft.LogBytes}}, false
	return s.durable, nil
}

// secured notes that everything applied is durable.
func (s *stateMachine) secured() {
	s.durable = s.replica.View().Applied
}

// Update implements IOnDiskStateMachine. All entries go into the engine as one batch; then their
// results are delivered (P1).
func (s *stateMachine) Update(entries []statemachine.Entry) ([]statemachine.Entry, error) {
	s.entries = s.entries[:0]
	var bytes int64
	for i := range entries {
		s.entries = append(s.entries, apply.Entry{Index: entries[i].Index, Data: entries[i].Cmd})
		bytes += int64(len(entries[i].Cmd))
	}
	r := s.replica
	r.host.wakeups.applied(r.id)
	before := r.View()
	if err := r.machine.Update(s.entries, r.proposed); err != nil {
		return nil, fmt.Errorf("apply to shard %d: %w", r.id, err)
	}
	r.host.updates.Add(1)
	if r.View().Compacted > before.Compacted {
		r.host.collector.poke()
	}
	if !before.Poisoned && r.View().Poisoned {
		r.reportUnfit()
	}
	r.host.cfg.Source.Observe(r.View().Rev)
	r.noteLeases() // before deliver: whoever was granted a lease may renew it at once
	for i := range s.entries {
		if e := &s.entries[i]; e.Want {
			r.proposer.deliver(e.Sequence, e.Results)
		}
		s.entries[i] = apply.Entry{} // keep nothing alive
	}
	r.wakeWaiters()
	if r.View().Since != before.Since {
		r.Spawn(r.host.reshaped) // P4
	}
	s.count(size{int64(len(entries)), bytes}, before.Applied)
	s.cutWhenFull()
	return entries, nil
}

// proposed reports whether a batch came from this process (P1).
func (r *Replica) proposed(b *shardpb.Batch) bool {
	return b.NodeId == uint64(r.host.cfg.Node) && b.Incarnation == r.host.cfg.Incarnation
}

// Lookup implements IOnDiskStateMachine; reads use Replica's own methods.
func (s *stateMachine) Lookup(any) (any, error) {
	return nil, fmt.Errorf("shard %d is not read through Raft", s.replica.id)
}

// Sync implements IOnDiskStateMachine: afterwards the log may be truncated up to what was applied. If the disk is
// full, or what the log holds is still needed (P14), Sync fails, and the log is truncated another time. dragonboat
// also calls Sync when a replica starts. Then it must not wait for what other replicas have applied, and must not
// fail for lack of the space that this would take.
func (s *stateMachine) Sync() error {
	if s.replica.host.cfg.Knobs.SyncWithoutFsync {
		return nil
	}
	// This comes before the check of what is durable here, because P14 is about the other nodes too.
	if !s.begins() && !s.replica.mayCut() {
		return fmt.Errorf("cut the log of shard %d behind a split or merge that is under way: %w", s.replica.id, errSnapshotOutOfDate)
	}
	if s.durable != s.replica.View().Applied {
		if err := s.replica.machine.Store(); err != nil {
			return err
		}
		if err := s.replica.host.cfg.Engine.Sync(); err != nil {
			return fmt.Errorf("cut the log of shard %d: %w, %w", s.replica.id, err, errSnapshotOutOfDate)
		}
		s.secured()
	}
	s.tail.truncated()
	return nil
}

// begins reports whether this Sync belongs to the snapshot with which the replica starts, or which it was sent.
// Nothing that is in use is truncated by that one: the log begins behind it. It must not fail.
func (s *stateMachine) begins() bool {
	if s.begun {
		return false
	}
	s.begun = true
	log, err := s.replica.host.nh.GetLogReader(uint64(s.replica.id))
	return err != nil || log.Snapshot().Index > 0 // while it starts, the log is not known yet
}

// image is the shard's state at one moment, for slow reading.
type image struct {
	view   shard.View
	leases *lease.Frozen
	data   *engine.View
}

// image pins what has been applied and stored. It is called on the apply worker, so no Update runs meanwhile, and the
// view, the leases and the pinned data belong to the same moment.
func (r *Replica) image(view shard.View) *image {
	return &image{view: view, leases: r.machine.Leases().Freeze(), data: r.host.cfg.Engine.NewView(view.Descriptor.Span)}
}

// PrepareSnapshot implements IOnDiskStateMachine.
func (s *stateMachine) PrepareSnapshot() (any, error) {
	view := s.replica.View()
	if view.Descriptor == nil || s.replica.Unfit() != "" { // nobody may receive damaged data
		return nil, fmt.Errorf("snapshot shard %d, which this replica has not or must not show: %w", s.replica.id, statemachine.ErrSnapshotAborted)
	}
	if err := s.replica.machine.Store(); err != nil {
		return nil, err
	}
	s.replica.keepLog(sendingMax)
	return s.replica.image(view), nil
}

// SaveSnapshot implements IOnDiskStateMachine. Updates continue meanwhile. It is called only to send a snapshot to
// another replica: the replica's own snapshots are metadata.
func (s *stateMachine) SaveSnapshot(prepared any, w io.Writer, stop <-chan struct{}) error {
	img := prepared.(*image)
	defer img.data.Close()
	defer s.replica.keepLog(sentPause)
	state, err := apply.MarshalSnapshot(img.view, img.leases.State())
	if err != nil {
		return fmt.Errorf("snapshot shard %d: %w", s.replica.id, err)
	}
	var data engine.Reader = img.data
	if s.replica.host.cfg.Knobs.ForgetSpanTail {
		data = forgetful{data}
	}
	if err := mvcc.WriteSnapshot(s.replica.host.pace.writer(w, stop), data, s.replica.host.cfg.Engine.Background, img.view.Descriptor.Span, state, stop); err != nil {
		return fmt.Errorf("snapshot shard %d: %w", s.replica.id, stoppedForRaft(err))
	}
	return nil
}

// stoppedForRaft marks a snapshot that dragonboat asked to stop with dragonboat's own error. Any other error ends the
// process.
func stoppedForRaft(err error) error {
	if errors.Is(err, mvcc.ErrSnapshotStopped) {
		return fmt.Errorf("%w: %w", statemachine.ErrSnapshotStopped, err)
	}
	return err
}

// RecoverFromSnapshot implements IOnDiskStateMachine: it replaces the shard's data and state in one atomic step.
func (s *stateMachine) RecoverFromSnapshot(src io.Reader, stop <-chan struct{}) error {
	r := s.replica
	s.begun = false
	s.tail = tail{max: s.tail.max}
	if err := r.machine.Restore(src, stop); err != nil {
		return fmt.Errorf("recover shard %d from a snapshot: %w", r.id, stoppedForRaft(err))
	}
	s.secured() // Replace is durable, and so is a poisoned state
	r.endReign()
	r.reportUnfit()
	r.host.cfg.Source.Observe(r.View().Rev)
	r.host.collector.poke()
	r.wakeWaiters()
	return nil
}

// Close implements IOnDiskStateMachine.
func (s *stateMachine) Close() error {
	s.replica.machine.Close()
	s.replica.host.ended.Store(s.replica.id, s.replica.replicaID)
	s.replica.host.leaders.Delete(s.replica.id) // a later replica of the shard, under another ID, is told the leader again
	s.replica.host.heirs.Delete(s.replica.id)
	s.replica.host.replicas.CompareAndDelete(s.replica.id, s.replica)
	close(s.replica.ended)
	s.replica.host.collector.poke() // nobody has to wait for this replica any more
	return nil
}
