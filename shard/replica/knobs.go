package replica

import (
	"github.com/cockroachdb/pebble/v2"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Knobs break the invariants on purpose, so that tests can show that the checkers detect it. The
// zero value breaks nothing.
type Knobs struct {
	// AckBeforeCommit answers puts when they are proposed (against P1).
	AckBeforeCommit bool
	// SkipReadBarrier reads whatever is applied (against P3).
	SkipReadBarrier bool
	// DropBatchTail acknowledges puts that were not proposed (against P2).
	DropBatchTail bool
	// SyncWithoutFsync truncates the Raft log before the engine is durable.
	SyncWithoutFsync bool
	// ForgetTTLs makes leases expire when a reign begins (against L3).
	ForgetTTLs bool
	// ForgetWills gives leases their whole TTL in each reign (against L9).
	ForgetWills bool
	// HastyPromises promises what a batch in flight may still be assigned (against P12).
	HastyPromises bool
	// ForgetSpanTail omits the end of the span from snapshots.
	ForgetSpanTail bool
}

// sabotage does what the knobs say: it answers commands without the log. It returns what is left to propose.
func (p *proposer) sabotage(batch []pending) []pending {
	keep := batch[:0:0]
	for i, w := range batch {
		put := w.cmd.Kind == shardpb.Kind_PUT
		lie := put && (p.knobs.AckBeforeCommit || p.knobs.DropBatchTail && i > 0 && i >= len(batch)/2)
		if !lie {
			keep = append(keep, w)
			continue
		}
		v := p.view()
		rev := shard.NextRevision(v.Floor, shard.Tick(w.cmd.Stamp), v.Descriptor.Slot)
		w.done(shard.Result{Revision: rev, Response: &pb.PutResponse{}})
		if p.knobs.AckBeforeCommit {
			keep = append(keep, pending{cmd: w.cmd, done: func(shard.Result) {}})
		}
	}
	return keep
}

// forgetful hides the upper half of the keys, by their first byte.
type forgetful struct{ engine.Reader }

// NewIter implements engine.Reader.
func (f forgetful) NewIter(o *pebble.IterOptions) (*pebble.Iterator, error) {
	cut := *o
	first, last := 0, 256
	if len(o.LowerBound) > 1 {
		first = int(o.LowerBound[1])
	}
	if len(o.UpperBound) > 1 && o.UpperBound[0] == o.LowerBound[0] {
		last = int(o.UpperBound[1])
	}
	cut.UpperBound = []byte{o.LowerBound[0], byte((first + last) / 2), 0}
	return f.Reader.NewIter(&cut)
}
