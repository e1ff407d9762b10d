package node

import (
	"context"
	"fmt"
	"time"

	"github.com/flotilla-kv/flotilla/router/adminapi"
	"github.com/flotilla-kv/flotilla/shard"
)

// Look implements adminapi.Cluster. The map is this node's copy, so that it answers even when the
// meta group does not.
func (l *loads) Look(ctx context.Context) (*adminapi.View, error) {
	m := l.node.table.Map()
	if m.ClusterID() == 0 {
		return nil, fmt.Errorf("the placement table is not known yet: %w", shard.ErrUnavailable)
	}
	c := l.collect(ctx, m)
	v := &adminapi.View{
		Map: m, Load: assemble(m, c), BalancerWaits: c.waits, Distrusted: make(map[shard.NodeID]string), Offsets: l.node.health.offsets(),
		Uptimes: make(map[shard.NodeID]time.Duration), Commits: make(map[shard.ID]adminapi.Commits),
		Terms: make(map[shard.ID]uint64), Sizes: make(map[shard.ID]map[shard.NodeID]int64), Now: time.Now(),
	}
	v.Load.InFlight = transfers(m, v.Load, v.Now)
	for id, h := range c.heard {
		if h.ClockDistrusted != "" {
			v.Distrusted[id] = h.ClockDistrusted
		}
		v.Uptimes[id] = time.Duration(h.UptimeMillis) * time.Millisecond
		for _, r := range h.Replicas {
			of := shard.ID(r.Shard)
			if v.Sizes[of] == nil {
				v.Sizes[of] = make(map[shard.NodeID]int64)
			}
			v.Sizes[of][id] = r.Bytes
			v.Terms[of] = max(v.Terms[of], r.Term)
			if v.Load.Shards[of].Leader == id {
				v.Commits[of] = adminapi.Commits{Half: micros(r.CommitMicros), Slow: micros(r.CommitSlowMicros)}
			}
		}
	}
	return v, nil
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
