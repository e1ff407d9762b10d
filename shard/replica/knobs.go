package replica

import (
	"github.com/cockroachdb/pebble/v2"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Knobs break the invariants on purpose, so that tests can show that the checkers
// notice. The zero value breaks nothing.
type Knobs struct {
	// AckBeforeCommit answers puts when they were proposed (against P1).
	AckBeforeCommit bool
	// SkipReadBarrier reads what happens to be applied (against P3).
	SkipReadBarrier bool
	// DropBatchTail acknowledges puts that were not proposed (against P2).
	DropBatchTail bool
	// SyncWithoutFsync lets the Raft log go before the engine is durable.
	SyncWithoutFsync bool
	// ForgetTTLs has leases expire when a reign begins (against L3).
	ForgetTTLs bool
	// ForgetWills has leases begin anew in each reign (against L9).
	ForgetWills bool
	// HastyPromises promises what a batch under way may still mint (against P12).
	HastyPromises bool
	// ForgetSpanTail leaves the end of the span out of snapshots.
	ForgetSpanTail bool
}

// sabotage answers, without the log, what the knobs say, and returns what is left to
// propose.
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
