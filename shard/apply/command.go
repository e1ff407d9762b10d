package apply

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

const batchFormat = 1

// revisionMax bounds the floor that the log may request, so that incrementing it cannot overflow.
// Real revisions stay far below (shard.Revision).
const revisionMax shard.Revision = 1 << 62

// command validates and executes one command. The error is a failure of the store; a refusal is in
// the result.
func (r *run) command(b *shardpb.Batch, cmd *shardpb.Command, want bool) (shard.Result, error) {
	resp, err := r.carryOut(b, cmd, want)
	if err != nil {
		answer, ok := asRefusal(err)
		if !ok {
			return shard.Result{}, err
		}
		return shard.Result{Revision: r.view.Rev, Err: answer}, nil
	}
	res := shard.Result{Revision: r.view.Rev}
	if want { // otherwise resp may be a nil pointer inside the interface
		res.Response = resp
	}
	return res, nil
}

// carryOut dispatches the command by its kind. It makes the checks that all kinds have in common,
// in this order: an unknown batch, a command for another shard.
func (r *run) carryOut(b *shardpb.Batch, cmd *shardpb.Command, want bool) (proto.Message, error) {
	if b.Format != batchFormat {
		return nil, malformed("batch format %d", b.Format)
	}
	if reshapes(cmd.Kind) && r.reshape != nil {
		// Only one per entry: each is validated against the state that the previous one has
		// produced.
		return nil, refuse(fmt.Errorf("shard %s changes its keys already: %w", r.id, shard.ErrUnavailable))
	}
	switch cmd.Kind {
	case shardpb.Kind_INIT:
		return nil, r.initialise(cmd)
	case shardpb.Kind_FREEZE:
		return nil, r.freeze(cmd)
	case shardpb.Kind_THAW:
		return nil, r.thaw(cmd)
	}
	d := r.view.Descriptor
	if d == nil {
		return nil, absent(r.id, r.view)
	}
	if cmd.Kind == shardpb.Kind_UPDATE {
		return nil, r.updateDescriptor(cmd)
	}
	if cmd.Epoch != d.Epoch && !r.knobs.AnyEpoch { // A7
		return nil, wrongShard(r.id, r.view)
	}
	switch cmd.Kind {
	case shardpb.Kind_PUT, shardpb.Kind_DELETE_RANGE, shardpb.Kind_TXN,
		shardpb.Kind_LEASE_GRANT, shardpb.Kind_LEASE_ATTACH, shardpb.Kind_LEASE_REVOKE, shardpb.Kind_LEASE_FORGET,
		shardpb.Kind_LEASE_REIGN, shardpb.Kind_LEASE_BEQUEATH, shardpb.Kind_LEASE_REGISTER, shardpb.Kind_LEASE_DETACH:
		return r.write(cmd, want)
	case shardpb.Kind_CLOSE:
		return nil, r.closeFloor(b, cmd)
	case shardpb.Kind_COMPACT:
		return nil, r.compact(cmd)
	case shardpb.Kind_SPLIT:
		return nil, r.split(cmd)
	case shardpb.Kind_CHECKSUM:
		return r.sumUp(cmd)
	case shardpb.Kind_SUBSUME:
		return nil, r.subsume(cmd)
	default:
		return nil, malformed("command kind %d", cmd.Kind)
	}
}

// reshapes reports whether commands of the kind change which keys a shard has.
func reshapes(k shardpb.Kind) bool {
	return k == shardpb.Kind_SPLIT || k == shardpb.Kind_FREEZE || k == shardpb.Kind_THAW || k == shardpb.Kind_SUBSUME
}

// initialise gives the shard its first descriptor. Several proposers may send it:
// the first one counts.
func (r *run) initialise(cmd *shardpb.Command) error {
	if r.view.Descriptor != nil || r.view.Poisoned || r.view.Frozen != nil {
		return nil
	}
	d, err := r.descriptor(cmd)
	if err != nil {
		return err
	}
	if d.Parent != 0 {
		return r.begin()
	}
	if err := r.reown(); err != nil {
		return err
	}
	if owner, err := r.node.ownerOf(d.Span); err != nil {
		return err
	} else if owner != 0 { // a log that goes back too far: A10
		r.view.Poisoned = true
		return absent(r.id, r.view)
	}
	if err := r.w.Establish(d.Span); err != nil {
		return err
	}
	r.view.Descriptor = d
	r.view.Rev, r.view.Floor = shard.FirstRevision, shard.FirstRevision
	return nil
}

// updateDescriptor adopts a newer descriptor of the same keys. An older one is a late duplicate and
// is ignored.
func (r *run) updateDescriptor(cmd *shardpb.Command) error {
	d, err := r.descriptor(cmd)
	if err != nil {
		return err
	}
	mine := r.view.Descriptor
	if !d.Span.Equal(mine.Span) || d.Epoch != mine.Epoch || d.Slot != mine.Slot {
		return wrongShard(r.id, r.view)
	}
	if d.Generation > mine.Generation {
		r.view.Descriptor = d
	}
	return nil
}

func (r *run) descriptor(cmd *shardpb.Command) (*shard.Descriptor, error) {
	d, err := descriptorOf(cmd, cmd.Descriptor_)
	if err == nil && d.ID != r.id {
		return nil, malformed("%s of shard %s sent to shard %s", cmd.Kind, d.ID, r.id)
	}
	return d, err
}

func descriptorOf(cmd *shardpb.Command, p *shardpb.Descriptor) (*shard.Descriptor, error) {
	switch {
	case p == nil:
		return nil, malformed("%s without a descriptor", cmd.Kind)
	case p.Slot > uint32(^shard.Slot(0)):
		return nil, malformed("%s with slot %d", cmd.Kind, p.Slot)
	}
	return shard.DescriptorOf(p), nil
}

// closeFloor promises that no later write gets a revision up to the given one. If it also requests
// a reservation, the revisions above are reserved for the batch's proposer.
func (r *run) closeFloor(b *shardpb.Batch, cmd *shardpb.Command) error {
	to, err := revisionOf(cmd)
	if err != nil {
		return err
	}
	until := shard.Revision(cmd.Reserve)
	if until < 0 || until > revisionMax {
		return malformed("%s that reserves up to revision %d", cmd.Kind, cmd.Reserve)
	}
	r.view.Floor = max(r.view.Floor, to)
	if until > 0 {
		r.reserve(b, until)
	}
	return nil
}

// compact makes history below the revision unreadable; the data is collected later, elsewhere. The
// revision is often another shard's and above this shard's last write. Rev rises to it; otherwise
// the revision that reads of this shard return could not be read again (A5). It rises further, to what
// the sender had seen; otherwise the next compaction would outdate a watch from there (A18).
func (r *run) compact(cmd *shardpb.Command) error {
	to, err := revisionOf(cmd)
	if err != nil {
		return err
	}
	seen := shard.Revision(cmd.Seen)
	if seen < 0 || seen > revisionMax {
		return malformed("%s by a sender that has seen revision %d", cmd.Kind, cmd.Seen)
	}
	if to <= r.view.Compacted {
		return refuse(shard.ErrCompacted)
	}
	r.view.Compacted = to
	r.view.Rev = max(r.view.Rev, to, seen)
	r.view.Floor = max(r.view.Floor, r.view.Rev)
	return nil
}

func revisionOf(cmd *shardpb.Command) (shard.Revision, error) {
	rev := shard.Revision(cmd.Revision)
	if rev < 0 || rev > revisionMax {
		return 0, malformed("%s at revision %d", cmd.Kind, cmd.Revision)
	}
	return rev, nil
}
