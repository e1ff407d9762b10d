package node

import (
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

// clockOffset returns how far the peer's clock is ahead, or 0 if the duration of the exchange explains the
// difference.
func clockOffset(sent, received, peer time.Time) time.Duration {
	switch {
	case peer.Before(sent):
		return peer.Sub(sent)
	case peer.After(received):
		return peer.Sub(received)
	}
	return 0
}

// offsets returns how far the clocks of the others that answer are ahead of this one's.
func (h *health) offsets() map[shard.NodeID]time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make(map[shard.NodeID]time.Duration)
	for id, p := range h.mu.peers {
		if !p.since.IsZero() {
			out[id] = p.offset
		}
	}
	return out
}

// judgeClock stops this node from proposing while its clock differs by more than the bound from
// most of the clocks that answered, its own included.
func (h *health) judgeClock() {
	h.mu.Lock()
	defer h.mu.Unlock()
	bound := h.node.cfg.MaxClockOffset
	readings, far := 1, 0
	var worst peerHealth
	for _, p := range h.mu.peers {
		if p.since.IsZero() {
			continue
		}
		readings++
		if p.offset.Abs() > bound {
			far++
			if p.offset.Abs() > worst.offset.Abs() {
				worst = p
			}
		}
	}
	if 2*far <= readings {
		if h.node.hlc.Distrusted() != "" {
			h.node.log.Info("clock is in bounds again; proposing")
		}
		h.node.hlc.Trust()
		return
	}
	direction := "behind"
	if worst.offset < 0 {
		direction = "ahead of"
	}
	why := fmt.Sprintf("this node's clock is %s %s node %s's and more than --max-clock-offset %s from %d of the %d others; mend it (chrony, ntpd), the node goes on by itself",
		worst.offset.Abs().Round(time.Millisecond), direction, worst.name, bound, far, readings-1)
	if h.node.hlc.Distrusted() == "" {
		h.node.log.Error("not proposing: " + why)
	}
	h.node.hlc.Distrust(why)
}

// agreedTime returns a time that the clocks of a majority of the nodes, including this one, have passed. There is
// none until a majority has answered once. A node that went silent still counts with the time it last showed.
func (h *health) agreedTime() (time.Time, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	clocks := []time.Time{h.node.cfg.Clock.Now()}
	for _, p := range h.mu.peers {
		clocks = append(clocks, p.clock)
	}
	slices.SortFunc(clocks, func(a, b time.Time) int { return b.Compare(a) })
	agreed := clocks[len(clocks)/2]
	return agreed, !agreed.IsZero()
}
