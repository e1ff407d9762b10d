package placement

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
)

// leftMin is the smallest share that either half of a split may have. With a smaller one the other half
// would be nearly as large as the whole, and the split would not help.
const leftMin = 0.2

// pressure is how close a shard is to being split: 1 is the threshold.
type pressure struct {
	size, load float64
}

func (p *planner) pressure(bytes int64, writes, writeBytes float64) pressure {
	return pressure{
		size: float64(bytes) / float64(p.rules.SplitBytes),
		load: max(writes/p.rules.SplitWrites, writeBytes/float64(p.rules.SplitWriteBytes)),
	}
}

func (a pressure) most() float64 { return max(a.size, a.load) }

// split splits shards that are too large or too busy, the worst first.
func (p *planner) split() {
	var over []*planGroup
	var nearest *planGroup
	press := func(g *planGroup) pressure { return p.pressure(g.load.Bytes, g.load.Writes, g.load.WriteBytes) }
	for i := range p.groups {
		g := &p.groups[i]
		if g.meta() || !g.fresh {
			continue
		}
		if press(g).most() > 1 {
			over = append(over, g)
		}
		if nearest == nil || press(g).most() > press(nearest).most() {
			nearest = g
		}
	}
	slices.SortStableFunc(over, func(a, b *planGroup) int { return -cmp.Compare(press(a).most(), press(b).most()) })
	for _, g := range over {
		if g.busy {
			continue
		}
		limits := fmt.Sprintf("the limits are %s, %.0f writes/s and %s/s", bytesText(float64(p.rules.SplitBytes)), p.rules.SplitWrites, bytesText(float64(p.rules.SplitWriteBytes)))
		if why := p.splitOne(g, press(g), limits); why != "" {
			p.leave(RuleSplit, g.d.ID, why)
		}
	}
	if len(over) == 0 && nearest != nil {
		p.note(RuleSplit, "no shard reaches %s, %.0f writes/s or %s/s; shard %s is nearest, at %.0f %%", bytesText(float64(p.rules.SplitBytes)),
			p.rules.SplitWrites, bytesText(float64(p.rules.SplitWriteBytes)), nearest.d.ID, 100*press(nearest).most())
	}
}

// fineShare is how close to the threshold a shard must be to be split for the sake of balance. The shard must also
// be above fineMerge times the threshold of merges, so that its halves are not merged again.
const (
	fineShare = 0.4
	fineMerge = 1.6
)

// refine splits a shard if the node with the most leader load has too much, and everything there that another node
// could lead is so large that it would only move the gap. Too much means more than the average node: a node with less
// holds up nobody, and every additional shard makes writes more expensive.
func (p *planner) refine(f *field) {
	if len(f.over) < 2 {
		return
	}
	most := f.descending()[0]
	if f.at(most) <= (1+p.rules.BalanceGap)*f.mean {
		return
	}
	for _, g := range p.ledBy(most) {
		press := p.pressure(0, g.load.Writes, g.load.WriteBytes)
		if g.busy || press.load < max(fineShare, fineMerge*p.rules.MergeBelow) || !slices.ContainsFunc(g.voters, func(t int) bool {
			return p.canLead(g, t) && f.open(most, t) && !f.closes(most, t, g.cost)
		}) {
			continue
		}
		why := fmt.Sprintf("%s leads %s, and what it leads is too large to be led elsewhere for that", p.nodes[most].Name, f.text(f.at(most)))
		if p.splitOne(g, press, why) == "" {
			return
		}
	}
}

// splitOne plans the split for the given reason, or returns why it does not.
func (p *planner) splitOne(g *planGroup, press pressure, reason string) (why string) {
	what := fmt.Sprintf("%s, %.0f writes/s and %s/s", bytesText(float64(g.load.Bytes)), g.load.Writes, bytesText(g.load.WriteBytes))
	switch {
	case g.locked != "":
		return what + " would be split, but locked: " + g.locked
	case p.reshapes >= p.rules.ReshapesMax:
		return fmt.Sprintf("waiting: at most %d splits and merges at once", p.rules.ReshapesMax)
	case !g.settled:
		return fmt.Sprintf("split or merged less than %s ago; the figures are not believed yet", p.rules.Settle)
	}
	if why := p.unready(g); why != "" {
		return what + " would be split, but " + why
	}
	point, divides, unit := g.load.Balance, "load", "the writes"
	if press.size > press.load {
		point, divides, unit = g.load.Middle, "bytes", "the bytes"
	}
	switch {
	case len(point.Key) == 0:
		return fmt.Sprintf("%s: too much, but no key is known that divides its %s", what, divides)
	case !g.d.Span.Contains(point.Key) || bytes.Equal(point.Key, g.d.Span.Start):
		return fmt.Sprintf("%s: too much, but the key suggested, %q, is not inside its span", what, point.Key)
	case point.Left < leftMin || point.Left > 1-leftMin:
		return fmt.Sprintf("%s: too much, but its best key, %q, leaves %.0f %% of %s on one side, so a split would not help",
			what, point.Key, 100*max(point.Left, 1-point.Left), unit)
	}
	p.do(g, Step{Kind: Split, Key: bytes.Clone(point.Key), Epoch: g.d.Epoch + 1, Rule: RuleSplit,
		Why:    what + "; " + reason,
		Effect: fmt.Sprintf("two shards with %.0f %% and %.0f %% of %s", 100*point.Left, 100*(1-point.Left), unit)})
	return ""
}

// unready returns why a shard's replicas are not ready for a split or merge; empty if they are. A replica that is down
// or far behind would need a copy of all data afterwards.
func (p *planner) unready(g *planGroup) string {
	if len(g.learners) > 0 {
		return "it has a learner"
	}
	for _, v := range g.voters {
		n := &p.nodes[v]
		if n.condition != up {
			return fmt.Sprintf("%s is %s", n.Name, p.conditionText(n))
		}
		if v == g.leader {
			continue
		}
		behind, known := g.load.Behind[n.ID]
		if !known {
			return "it is not known how far its replica on " + n.Name + " is"
		}
		if behind > p.rules.LagMax {
			return fmt.Sprintf("its replica on %s is %d entries behind, at most %d are allowed", n.Name, behind, p.rules.LagMax)
		}
	}
	return ""
}
