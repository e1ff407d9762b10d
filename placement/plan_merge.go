package placement

import (
	"fmt"
	"slices"

	"github.com/flotilla-kv/flotilla/shard"
)

// neighbours are two small adjacent shards.
type neighbours struct {
	left, right *planGroup
	obstacle    string // why they stay separate; empty if they are to be merged
}

// smallNeighbours pairs small neighbours that are to be merged, while every node is left a shard to lead, and returns
// what is to be said or done about them: as many are merged at a time as are allowed. It runs before anything is moved
// for balance, so that balancing leaves them alone. Neighbours that only wait stay paired. Otherwise a shard would be brought to
// one neighbour, and while the two wait to be merged, to the other one.
func (p *planner) smallNeighbours() (found []neighbours) {
	if p.rules.MergeBelow == 0 {
		return nil
	}
	shards := p.groups
	if len(shards) > 0 && shards[0].meta() {
		shards = shards[1:]
	}
	remaining, reshapes := len(shards)-p.merging, p.reshapes
	for i := 1; i < len(shards); i++ {
		left, right := &shards[i-1], &shards[i]
		if left.merging { // counted already
			left.paired, right.paired = true, true
		}
		if left.paired || !p.small(left, right) {
			continue
		}
		if why := p.mergeRefused(left, right, remaining); why != "" {
			found = append(found, neighbours{left, right, why})
			continue
		}
		obstacle := p.mergeWaits(left, right)
		if obstacle == "" {
			if obstacle = p.mergeObstacle(left, right); obstacle != "" {
				found = append(found, neighbours{left, right, obstacle}) // others may be merged instead
				continue
			}
			if reshapes >= p.rules.ReshapesMax {
				obstacle = fmt.Sprintf("waiting: at most %d splits and merges at once", p.rules.ReshapesMax)
			}
		}
		found = append(found, neighbours{left, right, obstacle})
		p.pair(left, right)
		remaining--
		if obstacle == "" {
			left.busy, right.busy = true, true
			reshapes++
		}
	}
	return found
}

// pair has two neighbours count as what they are to become. The right one's replicas weigh no more than their contents. If
// they weighed more, bringing the two together would open a gap, which balancing would close by separating them again.
func (p *planner) pair(left, right *planGroup) {
	left.paired, right.paired = true, true
	left.busy = left.busy || right.busy // the step may be the move that brings the two together
	right.busy = left.busy
	for _, n := range right.voters {
		p.hold(right, n, -1)
	}
	right.absorbed = true
	for _, n := range right.voters {
		p.hold(right, n, 1)
	}
}

// merge merges small neighbours. If two are not on the same nodes, several plans first bring them together, one move
// at a time.
func (p *planner) merge(small []neighbours) {
	for _, n := range small {
		if n.obstacle != "" {
			p.leave(RuleMerge, n.right.d.ID, n.obstacle)
		} else {
			p.mergeStep(n.left, n.right)
		}
	}
	switch {
	case p.rules.MergeBelow == 0:
		p.note(RuleMerge, "merging is off (merge-below is 0)")
	case len(small) == 0:
		p.note(RuleMerge, "no two neighbours are below %.0f %% of what is split", 100*p.rules.MergeBelow)
	}
}

// mergeStep merges two neighbours, or moves a replica of the right one to a node of the left one.
func (p *planner) mergeStep(left, right *planGroup) {
	from, to := apart(left, right)
	if from < 0 {
		p.do(left, Step{Kind: Merge, With: right.d.ID, Rule: RuleMerge, Bytes: right.load.Bytes,
			Key: right.d.Span.Start, Epoch: mergedEpoch(left.d, right.d),
			Why: fmt.Sprintf("together they have %s and at most %.0f writes/s; below %.0f %% of what is split they are merged",
				bytesText(float64(left.load.Bytes+right.load.Bytes)), left.load.PeakWrites+right.load.PeakWrites, 100*p.rules.MergeBelow),
			Effect: fmt.Sprintf("shard %s owns %s", left.d.ID, shard.Span{Start: left.d.Span.Start, End: right.d.Span.End})})
		return
	}
	if p.atLimit(right, to) {
		p.leave(RuleMerge, right.d.ID, p.limitText())
		return
	}
	a, b := &p.nodes[from], &p.nodes[to]
	p.do(right, Step{Kind: MoveReplica, From: a.ID, To: b.ID, Rule: RuleMerge, Bytes: right.load.Bytes,
		Why:    fmt.Sprintf("it is small and to be merged with shard %s, which is on %s and not on %s", left.d.ID, b.Name, a.Name),
		Effect: "the two can be merged once all their replicas are on the same nodes"})
}

// small reports whether two neighbours are so far from a split, as far as is known, that they can be merged.
func (p *planner) small(left, right *planGroup) bool {
	for _, g := range []*planGroup{left, right} {
		if !g.heard && !g.busy { // in the middle of a step a shard may have no leader
			return false
		}
	}
	a, b := left.load, right.load
	now := p.pressure(a.Bytes+b.Bytes, a.Writes+b.Writes, a.WriteBytes+b.WriteBytes)
	peak := p.pressure(0, a.PeakWrites+b.PeakWrites, a.PeakWriteBytes+b.PeakWriteBytes)
	return max(now.most(), peak.most()) < p.rules.MergeBelow
}

// mergeRefused returns why two small neighbours stay separate, whatever state their replicas are in.
func (p *planner) mergeRefused(left, right *planGroup, remaining int) string {
	active := 0
	for i := range p.nodes {
		if p.nodes[i].State == Active {
			active++
		}
	}
	if right.d.Parent == 0 {
		return "small, but it is one of those that the cluster was made with (--initial-splits)"
	}
	if reason, pinned := p.rules.Pinned[string(right.d.Span.Start)]; pinned {
		return "small, but where it begins is pinned: " + reason
	}
	if remaining <= active {
		return fmt.Sprintf("small, but there are %d shards for %d nodes to lead", remaining, active)
	}
	for _, g := range []*planGroup{left, right} {
		if g.locked != "" {
			return fmt.Sprintf("small, but shard %s is locked: %s", g.d.ID, g.locked)
		}
	}
	return ""
}

// mergeWaits returns what two small neighbours wait for; empty if it is known for long enough that they are small.
func (p *planner) mergeWaits(left, right *planGroup) string {
	if left.busy || right.busy {
		return "waiting: it or its neighbour is being changed"
	}
	for _, g := range []*planGroup{left, right} {
		if !g.fresh || p.now.Sub(g.load.SpanSince) < p.rules.MergeWait {
			return fmt.Sprintf("small, but it or its neighbour was split, merged or given another leader less than %s ago", p.rules.MergeWait)
		}
	}
	return ""
}

// mergeObstacle returns what prevents two small neighbours from being merged, for nobody knows how long.
func (p *planner) mergeObstacle(left, right *planGroup) string {
	for _, g := range []*planGroup{left, right} {
		if why := p.unready(g); why != "" {
			return "small, but " + why
		}
	}
	return p.gatherObstacle(left, right)
}

// apart returns a node that has a replica of the right neighbour only, and a node that has a replica of the left
// neighbour only; -1 if there is no such node.
func apart(left, right *planGroup) (from, to int) {
	lacks := func(a, b *planGroup) int {
		i := slices.IndexFunc(b.voters, func(v int) bool { return !slices.Contains(a.voters, v) })
		if i < 0 {
			return -1
		}
		return b.voters[i]
	}
	return lacks(left, right), lacks(right, left)
}

// gatherObstacle returns why two neighbours are not brought together on the left one's nodes; empty if they can be.
// The moves must open no gap between nodes, because balancing would then undo them.
func (p *planner) gatherObstacle(left, right *planGroup) string {
	from, to := apart(left, right)
	if from < 0 && to < 0 {
		return ""
	}
	if len(left.voters) != len(right.voters) {
		return "small, but its neighbour has another number of replicas"
	}
	for _, to := range left.voters {
		if slices.Contains(right.voters, to) {
			continue
		}
		b := &p.nodes[to]
		switch why := p.refuses(b); {
		case why != "":
			return fmt.Sprintf("small, but its neighbour is on %s, where nothing goes: %s", b.Name, why)
		case !p.fits(b, right.bytes):
			return "small, but " + b.Name + " would have too little disk left"
		}
		takes := func(n *planNode) bool { return p.refuses(n) == "" }
		if f := p.field(storing(), takes); f.opens(to, right.bytes-idleBytes) {
			return fmt.Sprintf("small, but its bytes would open a gap on %s, where its neighbour is", b.Name)
		}
		if f := p.field(working(), takes); f.opens(to, right.cost-idleCost) {
			return fmt.Sprintf("small, but its write load would open a gap on %s, where its neighbour is", b.Name)
		}
	}
	return ""
}

// opens reports whether adding x to a node would give it so much more than another one that something should move. Less
// than half of the gap that is allowed does not: where a few replicas cannot be divided among the nodes there is
// a larger one anyway.
func (f *field) opens(n int, x float64) bool {
	allowed := f.p.rules.BalanceGap * f.mean
	return x > allowed/2 && slices.ContainsFunc(f.over, func(o int) bool { return o != n && f.at(n)+x-f.at(o) > allowed })
}
