package placement

import (
	"cmp"
	"fmt"
	"slices"
)

// measure is a quantity of which nodes should have equal amounts.
type measure struct {
	name  string
	node  func(*planNode) *float64
	group func(*planGroup) float64
	text  func(float64) string
}

func leading() measure {
	return measure{"write load", func(n *planNode) *float64 { return &n.lead }, func(g *planGroup) float64 { return g.cost }, costText}
}

func counting() measure {
	return measure{"shards led", func(n *planNode) *float64 { return &n.leads }, func(*planGroup) float64 { return 1 }, countText}
}

func working() measure {
	return measure{"write load of replicas", func(n *planNode) *float64 { return &n.work }, (*planGroup).work, costText}
}

func storing() measure {
	return measure{"bytes", func(n *planNode) *float64 { return &n.data }, (*planGroup).data, bytesText}
}

// field is the set of nodes over which a measure is compared.
type field struct {
	measure
	p    *planner
	over []int
	mean float64
}

func (p *planner) field(m measure, takes func(*planNode) bool) *field {
	f := &field{measure: m, p: p}
	for i := range p.nodes {
		if takes(&p.nodes[i]) {
			f.over = append(f.over, i)
			f.mean += *m.node(&p.nodes[i])
		}
	}
	f.mean /= max(1, float64(len(f.over)))
	return f
}

func (f *field) at(n int) float64 { return *f.node(&f.p.nodes[n]) }

// gap is how much more a has than b, as a share of the mean.
func (f *field) gap(a, b int) float64 {
	if f.mean == 0 {
		return 0
	}
	return (f.at(a) - f.at(b)) / f.mean
}

// open reports whether a has so much more than b that something should move.
func (f *field) open(a, b int) bool { return f.gap(a, b) > f.p.rules.BalanceGap }

// closes reports whether moving x from a to b leaves a with no less than b (L4).
func (f *field) closes(a, b int, x float64) bool { return 2*x <= f.at(a)-f.at(b) }

// share is a replica's amount of the measure, as a multiple of an average replica's.
func (f *field) share(g *planGroup) float64 {
	return f.group(g) * f.p.voters / (f.mean * float64(len(f.over)))
}

// A replica with at least busyShare is busy, and one with less than quietShare is quiet. In between it is neither, so
// that small variations in a measured rate do not turn a busy replica into a quiet one.
const (
	busyShare  = 1
	quietShare = 0.75
)

func (f *field) busy(g *planGroup) bool  { return f.share(g) >= busyShare }
func (f *field) quiet(g *planGroup) bool { return f.share(g) < quietShare }

// spares reports whether moving g from a to b opens no gap (L5). That is so if g is quiet, if the move does not
// reverse the order of the two nodes, or if it leaves both near the mean: within slack times the deviation for which
// no step would be taken.
func (f *field) spares(a, b int, g *planGroup, slack float64) bool {
	x, near := f.group(g), f.mean*f.p.rules.BalanceGap/2*slack
	return f.quiet(g) || f.closes(a, b, x) || f.at(b)+x <= f.mean+near && f.at(a)-x >= f.mean-near
}

// descending returns the nodes, those with the most first.
func (f *field) descending() []int {
	out := slices.Clone(f.over)
	slices.SortStableFunc(out, func(a, b int) int { return -cmp.Compare(f.at(a), f.at(b)) })
	return out
}

// even moves things from the nodes that have the most, until no gap is left or nothing can move. move takes one thing
// off a node, or says why it does not.
func (f *field) even(rule Rule, move func(from int) (moved bool, obstacle string)) {
	if len(f.over) < 2 {
		f.p.note(rule, "%s: fewer than two nodes can take any", f.name)
		return
	}
	order := f.descending()
	f.p.gaps = append(f.p.gaps, Gap{f.name, f.gap(order[0], order[len(order)-1])})
	exhausted, firstObstacle, moved := make(map[int]bool), "", false
	for {
		order := f.descending()
		least := order[len(order)-1]
		i := slices.IndexFunc(order, func(n int) bool { return !exhausted[n] })
		if i < 0 || !f.open(order[i], least) {
			break
		}
		done, obstacle := move(order[i])
		moved = moved || done
		if done {
			continue
		}
		exhausted[order[i]] = true
		firstObstacle = cmp.Or(firstObstacle, obstacle)
	}
	f.explain(rule, moved, firstObstacle)
}

// explain reports how even the nodes are, and what prevents them from being more so.
func (f *field) explain(rule Rule, moved bool, obstacle string) {
	order := f.descending()
	most, least := order[0], order[len(order)-1]
	facts := fmt.Sprintf("%s: %s has %s, %s has %s, a gap of %.0f %% of the mean", f.name,
		f.p.nodes[most].Name, f.text(f.at(most)), f.p.nodes[least].Name, f.text(f.at(least)), 100*f.gap(most, least))
	switch {
	case !f.open(most, least) && moved:
		f.p.note(rule, "%s when this is done", facts)
	case !f.open(most, least):
		f.p.note(rule, "%s; more than %.0f %% is needed", facts, 100*f.p.rules.BalanceGap)
	default:
		f.p.note(rule, "%s, and it stays: %s", facts, cmp.Or(obstacle, "nothing there may move"))
	}
}

// balanceLeaders evens out the load of leaders, and then their number, by transferring leadership, which copies
// nothing. The number matters where most of the load is in few shards: all the others together cost less than a gap.
// A step for the number must even out the load as well (L4); otherwise the two would transfer the same shards back
// and forth.
func (p *planner) balanceLeaders() {
	takes := func(n *planNode) bool { return n.noLead == "" }
	load, number := p.field(leading(), takes), p.field(counting(), takes)
	p.balanceLed(load, func(_, _ int, _ *planGroup) bool { return true })
	p.refine(load)
	p.balanceLed(number, func(from, to int, g *planGroup) bool { return load.closes(from, to, g.cost) })
}

// balanceLed evens out f by the leadership transfers that may allows.
func (p *planner) balanceLed(f *field, may func(from, to int, g *planGroup) bool) {
	led := make(map[int][]*planGroup)
	f.even(RuleLeaders, func(from int) (bool, string) {
		if p.transfers >= p.rules.TransfersMax {
			return false, p.transfersText()
		}
		obstacle := ""
		if led[from] == nil {
			led[from] = p.ledBy(from)
		}
		for _, g := range led[from] {
			if g.busy {
				continue
			}
			to, why := f.leaderFor(g, from, may)
			if to < 0 {
				obstacle = cmp.Or(obstacle, why)
				continue
			}
			a, b, x := &p.nodes[from], &p.nodes[to], f.group(g)
			p.do(g, Step{Kind: TransferLeader, From: a.ID, To: b.ID, Rule: RuleLeaders,
				Why: fmt.Sprintf("%s: %s on %s and %s on %s, a gap of %.0f %% of the mean, %.0f %% are allowed", f.name,
					f.text(f.at(from)), a.Name, f.text(f.at(to)), b.Name, 100*f.gap(from, to), 100*p.rules.BalanceGap),
				Effect: fmt.Sprintf("%s on %s, %s on %s", f.text(f.at(from)-x), a.Name, f.text(f.at(to)+x), b.Name)})
			return true, ""
		}
		return false, obstacle
	})
}

// leaderFor finds the voter that should lead g instead of from.
func (f *field) leaderFor(g *planGroup, from int, may func(from, to int, g *planGroup) bool) (best int, why string) {
	best = -1
	for _, t := range g.voters {
		switch {
		case !f.p.canLead(g, t) || !f.open(from, t):
		case !f.closes(from, t, f.group(g)):
			why = fmt.Sprintf("to make %s lead shard %s (%s) would only move the gap of %.0f %%",
				f.p.nodes[t].Name, g.d.ID, f.text(f.group(g)), 100*f.gap(from, t))
		case !may(from, t, g):
			why = fmt.Sprintf("to make %s lead shard %s (%s) would not even out the write load", f.p.nodes[t].Name, g.d.ID, costText(g.cost))
		case best < 0 || f.at(t) < f.at(best):
			best = t
		}
	}
	return best, cmp.Or(why, fmt.Sprintf("no replica of what %s leads is on a node with less that could lead it", f.p.nodes[from].Name))
}

// bytesSlack lets a step for write load open a gap in bytes of up to twice the allowed size. Steps for bytes close it
// again with quiet shards, and may open no gap in write load. Steps for write load take only busy shards, and steps
// for bytes take quiet ones first; otherwise the two would move the same shards back and forth.
const bytesSlack = 2

// balanceData evens out bytes, and then the write load of all replicas, by moving replicas that do not lead.
func (p *planner) balanceData() {
	takes := func(n *planNode) bool { return p.refuses(n) == "" }
	data, work := p.field(storing(), takes), p.field(working(), takes)
	p.balanceReplicas(data, work, 1, func(from int) []*planGroup {
		held := p.heldBy(from, data.group)
		last := func(g *planGroup) (rank int) {
			if !work.quiet(g) {
				rank += 2
			}
			if g.paired { // its neighbour would have to follow
				rank++
			}
			return rank
		}
		slices.SortStableFunc(held, func(a, b *planGroup) int { return cmp.Compare(last(a), last(b)) })
		return held
	})
	p.balanceReplicas(work, data, bytesSlack, func(from int) []*planGroup {
		return slices.DeleteFunc(p.heldBy(from, work.group), func(g *planGroup) bool { return !work.busy(g) })
	})
}

// balanceReplicas evens out f, and opens no gap in other beyond the given slack. candidates are the groups that may
// leave a node, in the order in which to try them.
func (p *planner) balanceReplicas(f, other *field, slack float64, candidates func(from int) []*planGroup) {
	held := make(map[int][]*planGroup)
	f.even(RuleData, func(from int) (bool, string) {
		if p.moves >= p.rules.MovesMax {
			return false, p.limitText()
		}
		targets := f.descending()
		slices.Reverse(targets)
		targets = slices.DeleteFunc(targets, func(t int) bool { return !f.open(from, t) })
		open := len(targets)
		targets = slices.DeleteFunc(targets, func(t int) bool { return p.nodes[t].moving >= p.rules.MovesPerNode })
		if len(targets) == 0 {
			return false, p.limitText()
		}
		obstacle := ""
		if held[from] == nil {
			held[from] = candidates(from)
		}
		for _, g := range held[from] {
			// What its left neighbour is to absorb follows that one.
			if g.busy || g.absorbed || g.leader == from && len(g.voters) > 1 {
				continue
			}
			for _, to := range targets {
				why := p.replicaObstacle(f, other, slack, g, from, to)
				if why != "" {
					obstacle = cmp.Or(obstacle, why)
					continue
				}
				p.moveForBalance(f, g, from, to)
				return true, ""
			}
		}
		if len(targets) < open {
			obstacle = p.limitText()
		}
		return false, obstacle
	})
}

// replicaObstacle returns why a replica is not moved from one node to another; empty if it may be.
func (p *planner) replicaObstacle(f, other *field, slack float64, g *planGroup, from, to int) string {
	switch {
	case g.has(to):
		return p.nodes[to].Name + " has a replica of everything that could move there"
	case !f.closes(from, to, f.group(g)):
		return fmt.Sprintf("shard %s has %s and would only move the gap of %.0f %%", g.d.ID, f.text(f.group(g)), 100*f.gap(from, to))
	case p.atLimit(g, to):
		return p.limitText()
	case !p.fits(&p.nodes[to], g.bytes):
		return p.nodes[to].Name + " would have too little disk left"
	case p.compareCrowding(g.voters, from, to, -1, -1) > 0:
		return "replicas would share a zone"
	case !other.spares(from, to, g, slack):
		return "it would open a gap in " + other.name
	default:
		return ""
	}
}

func (p *planner) moveForBalance(f *field, g *planGroup, from, to int) {
	a, b, x := &p.nodes[from], &p.nodes[to], f.group(g)
	p.do(g, Step{Kind: MoveReplica, From: a.ID, To: b.ID, Rule: RuleData, Bytes: g.load.Bytes,
		Why: fmt.Sprintf("%s: %s on %s and %s on %s, a gap of %.0f %% of the mean, %.0f %% are allowed", f.name,
			f.text(f.at(from)), a.Name, f.text(f.at(to)), b.Name, 100*f.gap(from, to), 100*p.rules.BalanceGap),
		Effect: fmt.Sprintf("%s on %s, %s on %s", f.text(f.at(from)-x), a.Name, f.text(f.at(to)+x), b.Name)})
}
