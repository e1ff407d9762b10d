package placement

import (
	"slices"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

// MoveObstacle returns why Plan would not move a shard's replica from one node to another (from 0: would not add
// one), whoever asks for it; empty if it might.
func MoveObstacle(m *Map, load *Load, now time.Time, id shard.ID, from, to shard.NodeID) string {
	p := newPlanner(m, load, m.Rules(), now)
	i := slices.IndexFunc(p.groups, func(g planGroup) bool { return g.d.ID == id })
	t, out := p.node(to), p.node(from)
	if i < 0 || t < 0 {
		return "" // refused for other reasons
	}
	g, n := &p.groups[i], &p.nodes[t]
	switch why := p.refuses(n); {
	case why != "":
		return n.Name + " takes no replica: " + why
	case !p.fits(n, g.bytes):
		return n.Name + " would have too little disk left"
	case out >= 0 && p.compareCrowding(g.voters, out, t, -1, -1) > 0:
		return "replicas would share a zone"
	default:
		return ""
	}
}
