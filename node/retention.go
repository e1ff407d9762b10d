package node

import (
	"context"
	"errors"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// retentionLook is how often it is checked whether a compaction is due.
	retentionLook = time.Second
	// A compaction is one log entry in every shard, so it must be rare: ten in the time that
	// history is kept, within these bounds.
	retentionEveryMin, retentionEveryMax = time.Second, 10 * time.Minute
)

// retention decides when history older than the retention time is compacted, and at which revision. The revision is
// always one that is known to have been written, so nothing is compacted if nothing was written since the last time.
// Every node records revisions from time to time, so that a new leader of the meta group has some. A node that has
// just started needs as long as the retention time until it has one that is old enough.
type retention struct {
	keep time.Duration
	// margin is how far a revision's tick may lag behind the time it was written.
	margin time.Duration

	// written are revisions that were the cluster's latest when they were recorded, ascending: at
	// most one per interval of every.
	written []shard.Revision
	looked  time.Time
}

// note records the largest known revision, at a time taken from the majority's clocks.
func (r *retention) note(agreed time.Time, seen shard.Revision) {
	every := min(max(r.keep/10, retentionEveryMin), retentionEveryMax)
	if agreed.Sub(r.looked) < every {
		return
	}
	r.looked = agreed
	if seen > shard.FirstRevision && (len(r.written) == 0 || seen > r.written[len(r.written)-1]) {
		r.written = append(r.written, seen)
	}
}

// due returns the revision to compact at, if a compaction is due. It forgets revisions that were
// compacted.
func (r *retention) due(agreed time.Time, compacted shard.Revision) (shard.Revision, bool) {
	r.written = slices.DeleteFunc(r.written, func(rev shard.Revision) bool { return rev <= compacted })
	horizon := shard.TickAt(agreed.Add(-r.keep - r.margin)).Revision()
	old, _ := slices.BinarySearch(r.written, horizon+1)
	if old == 0 {
		return 0, false
	}
	return r.written[old-1], true
}

// retain compacts history while this node leads the meta group, until ctx ends.
func (n *Node) retain(ctx context.Context) {
	r := retention{keep: n.cfg.HistoryRetention, margin: n.cfg.MaxClockOffset}
	tick := time.NewTicker(retentionLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		agreed, ok := n.health.agreedTime()
		if !ok {
			continue
		}
		r.note(agreed, n.hlc.Seen())
		rev, due := r.due(agreed, n.meta.Compacted())
		if !due || !n.meta.leads() || n.hlc.Distrusted() != "" {
			continue
		}
		_, err := n.router.Compact(ctx, &pb.CompactionRequest{Revision: int64(rev)})
		if err != nil && !errors.Is(err, shard.ErrCompacted) && ctx.Err() == nil {
			n.log.Warn("cannot compact history that is older than --history-retention; trying again", "revision", rev, "error", err)
		}
	}
}
