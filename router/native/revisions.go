package native

import (
	"time"

	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/shard"
)

// bound accepts only those claims of clients that could not do harm (V2). It is a peer.Revisions.
type bound struct {
	peer.Revisions
	clock clock.Clock
	ahead time.Duration
}

// limit is the largest revision that could have been assigned by now: by another clock, and above
// what a leader had reserved (shard.R6).
func (b bound) limit() shard.Revision {
	return max(b.Seen(), (shard.TickAt(b.clock.Now().Add(b.ahead)) + shard.ReserveAhead + 1).Revision())
}

// Observe implements peer.Revisions. A revision above the limit was not assigned, or by a node
// whose clock exceeds the tolerated offset; then the nodes will report it themselves.
func (b bound) Observe(r shard.Revision) {
	if r > b.Seen() && r <= b.limit() {
		b.Revisions.Observe(r)
	}
}
