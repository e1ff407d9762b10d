package placement

import (
	"cmp"
	"fmt"
	"slices"
)

// makeSpace moves replicas away from nodes whose disks fill up, the largest first, until the moves free enough space.
func (p *planner) makeSpace() {
	for s := range p.nodes {
		n := &p.nodes[s]
		if n.condition != up || !p.low(n) {
			continue
		}
		before := p.freeText(n)
		held := p.heldBy(s, func(g *planGroup) float64 { return g.bytes })
		waits, obstacle := false, ""
		for _, g := range held {
			if !p.low(n) || g.leader == s && len(g.voters) > 1 {
				continue // leaders go last: their followers free as much space
			}
			t, wait, why := p.target(g, s)
			if t < 0 || p.compareCrowding(g.voters, s, t, -1, -1) > 0 {
				waits, obstacle = waits || wait, why
				continue
			}
			to := &p.nodes[t]
			p.do(g, Step{Kind: MoveReplica, From: n.ID, To: to.ID, Rule: RuleSpace, Bytes: g.load.Bytes,
				Why:    fmt.Sprintf("%s has %s free, %.0f %% are wanted", n.Name, before, 100*p.rules.LowSpace),
				Effect: fmt.Sprintf("%s less on %s, %s free on %s", bytesText(float64(g.load.Bytes)), n.Name, p.freeText(to), to.Name)})
		}
		switch {
		case !p.low(n):
		case waits:
			p.note(RuleSpace, "%s stays below %.0f %% for now: more is %s", n.Name, 100*p.rules.LowSpace, p.limitText())
		case obstacle != "":
			p.note(RuleSpace, "%s has %s free and cannot be relieved: %s", n.Name, before, obstacle)
		default:
			p.note(RuleSpace, "%s has %s free and cannot be relieved: no replica may move away; add a node or a larger disk", n.Name, before)
		}
	}
}

func (p *planner) freeText(n *planNode) string {
	return fmt.Sprintf("%.0f %%", 100*n.free/float64(n.load.DiskTotal))
}

// heldBy returns the shards that have a voter on the node and that a step may change, those with the most of the
// measure first.
func (p *planner) heldBy(n int, measure func(*planGroup) float64) []*planGroup {
	return p.sorted(measure, func(g *planGroup) bool { return slices.Contains(g.voters, n) })
}

// ledBy returns the shards that the node leads and that a step may change, those with the most load first.
func (p *planner) ledBy(n int) []*planGroup {
	return p.sorted(func(g *planGroup) float64 { return g.cost }, func(g *planGroup) bool { return g.leader == n })
}

func (p *planner) sorted(measure func(*planGroup) float64, which func(*planGroup) bool) []*planGroup {
	var out []*planGroup
	for i := range p.groups {
		if g := &p.groups[i]; g.idle() && which(g) {
			out = append(out, g)
		}
	}
	slices.SortFunc(out, func(a, b *planGroup) int {
		return cmp.Or(-cmp.Compare(measure(a), measure(b)), cmp.Compare(a.d.ID, b.d.ID))
	})
	return out
}

// evacuate transfers leadership away from nodes that should not lead, including the meta group's: a slow leader there
// slows down all changes.
func (p *planner) evacuate() {
	for i := range p.groups {
		g := &p.groups[i]
		if g.leader < 0 || p.nodes[g.leader].noLead == "" || p.nodes[g.leader].condition != up {
			continue // Raft itself replaces a leader that is gone
		}
		n := &p.nodes[g.leader]
		switch {
		case g.busy: // its step may transfer leadership
		case g.locked != "":
			p.leave(RuleLeave, g.d.ID, fmt.Sprintf("%s should not lead (%s) but the shard is locked: %s", n.Name, n.noLead, g.locked))
		case !g.fresh:
			p.leave(RuleLeave, g.d.ID, fmt.Sprintf("%s should not lead (%s) but has not reported lately", n.Name, n.noLead))
		case p.transfers >= p.rules.TransfersMax:
			p.leave(RuleLeave, g.d.ID, p.transfersText())
		default:
			p.evacuateOne(g, n)
		}
	}
}

func (p *planner) transfersText() string {
	return fmt.Sprintf("waiting: at most %d leaders are on their way at once", p.rules.TransfersMax)
}

func (p *planner) evacuateOne(g *planGroup, n *planNode) {
	best := -1
	for _, t := range g.voters {
		if p.canLead(g, t) && (best < 0 || p.nodes[t].lead < p.nodes[best].lead) {
			best = t
		}
	}
	if best < 0 {
		p.leave(RuleLeave, g.d.ID, fmt.Sprintf("%s should not lead (%s) but no other replica is fit to", n.Name, n.noLead))
		return
	}
	to := &p.nodes[best]
	p.do(g, Step{Kind: TransferLeader, From: n.ID, To: to.ID, Rule: RuleLeave,
		Why:    fmt.Sprintf("%s should not lead: %s", n.Name, n.noLead),
		Effect: fmt.Sprintf("%s leads it, %s of leaders there", to.Name, costText(to.lead+g.cost))})
}

// canLead reports whether a voter may be made the leader: its node may lead, and the voter is known to have caught up
// (L3).
func (p *planner) canLead(g *planGroup, t int) bool {
	if t == g.leader || p.nodes[t].noLead != "" {
		return false
	}
	behind, known := g.load.Behind[p.nodes[t].ID]
	return known && behind <= p.rules.LagMax
}

// costText writes a load as the number of small writes with the same cost.
func costText(cost float64) string { return fmt.Sprintf("%.0f writes/s", cost) }

func countText(count float64) string { return fmt.Sprintf("%.0f", count) }
