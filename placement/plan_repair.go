package placement

import (
	"cmp"
	"fmt"
	"slices"
)

// repair brings every group to the number of voters that it should have, on nodes that are alive and will stay, in
// different zones. Groups nearest to losing their majority come first.
func (p *planner) repair() {
	var ill []*planGroup
	for i := range p.groups {
		if g := &p.groups[i]; !g.busy && p.ill(g) {
			ill = append(ill, g)
		}
	}
	slices.SortStableFunc(ill, func(a, b *planGroup) int { return cmp.Compare(p.spare(a), p.spare(b)) })
	for _, g := range ill {
		p.treat(g)
	}
	p.noteSilent()
	if len(ill) == 0 {
		p.note(RuleRepair, "every shard has its %s, or is about to", replicas(p.rules.ReplicationFactor))
	}
}

// metaVotersMin is the number of voters that the meta group has at least, if there are enough nodes. So the placement
// table survives the loss of a node even if the data has only one replica.
const metaVotersMin = 3

// wanted is how many voters a group should have.
func (p *planner) wanted(g *planGroup) int {
	if g.meta() {
		staying := 0
		for i := range p.nodes {
			if p.nodes[i].State != Decommissioning {
				staying++
			}
		}
		return max(p.rules.ReplicationFactor, min(metaVotersMin, staying))
	}
	return p.rules.ReplicationFactor
}

// spare is how many more voters a group can lose.
func (p *planner) spare(g *planGroup) int { return p.voting(g.voters) - len(g.voters)/2 - 1 }

// voting counts the voters that are up.
func (p *planner) voting(voters []int) int {
	n := 0
	for _, v := range voters {
		if p.nodes[v].condition == up {
			n++
		}
	}
	return n
}

func (p *planner) ill(g *planGroup) bool {
	if len(g.voters) != p.wanted(g) || len(g.learners) > 0 || p.spare(g) < 0 {
		return true
	}
	for _, v := range g.voters {
		if n := &p.nodes[v]; n.condition == dead || n.State == Decommissioning || p.unfit(g, v) != "" {
			return true
		}
	}
	return p.crowded(g)
}

// unfit returns why a group's replica on a node serves nothing; empty if it is healthy.
func (p *planner) unfit(g *planGroup, n int) string { return g.load.Unfit[p.nodes[n].ID] }

// crowded reports whether replicas share zones more often than the number of zones makes necessary.
func (p *planner) crowded(g *planGroup) bool {
	for level, zone := range p.zones {
		zones := slices.Max(zone) + 1
		each, over := len(g.voters)/zones, len(g.voters)%zones
		forced := zones*each*(each-1)/2 + over*each
		if p.crowding(level, g.voters, -1, -1) > forced {
			return true
		}
	}
	return false
}

// treat does the most urgent thing for a group, or says why nothing can be done.
func (p *planner) treat(g *planGroup) {
	switch {
	case p.spare(g) < 0:
		p.leave(RuleRepair, g.d.ID, fmt.Sprintf("majority lost: of %s only %d are up; nothing can change until more come back",
			p.nameList(g.voters), p.voting(g.voters)))
	case g.locked != "":
		p.leave(RuleRepair, g.d.ID, "to be repaired, but locked: "+g.locked)
	case !g.fresh:
		p.leave(RuleRepair, g.d.ID, "to be repaired, but no leader has reported lately")
	case len(g.learners) > 0:
		p.finishLearner(g)
	case len(g.voters) < p.wanted(g):
		p.addReplica(g)
	case len(g.voters) > p.wanted(g):
		p.removeSurplus(g)
	default:
		p.replace(g)
	}
}

// finishLearner completes or removes a learner left by a step that is no longer in flight.
func (p *planner) finishLearner(g *planGroup) {
	l := g.learners[0]
	n := &p.nodes[l]
	if len(g.voters) < p.wanted(g) && p.refuses(n) == "" && p.unfit(g, l) == "" {
		if p.atLimit(g, l) {
			p.leave(RuleRepair, g.d.ID, p.limitText())
			return
		}
		p.do(g, Step{Kind: AddReplica, To: n.ID, Rule: RuleRepair, Bytes: g.load.Bytes,
			Why:    fmt.Sprintf("the learner on %s was left when its step ended, and the shard has %d of %d voters", n.Name, len(g.voters), p.wanted(g)),
			Effect: fmt.Sprintf("%d voters", len(g.voters)+1)})
		return
	}
	p.do(g, Step{Kind: RemoveReplica, From: n.ID, Rule: RuleRepair,
		Why: fmt.Sprintf("the learner on %s was left when its step ended", n.Name), Effect: "no learner"})
}

func (p *planner) addReplica(g *planGroup) {
	t, wait, why := p.target(g, -1)
	if t < 0 {
		if !wait {
			why = fmt.Sprintf("%d of %d replicas: %s", len(g.voters), p.wanted(g), why)
		}
		p.leave(RuleRepair, g.d.ID, why)
		return
	}
	p.do(g, Step{Kind: AddReplica, To: p.nodes[t].ID, Rule: RuleRepair, Bytes: g.load.Bytes,
		Why:    fmt.Sprintf("the shard has %d of %d replicas", len(g.voters), p.wanted(g)),
		Effect: fmt.Sprintf("%d replicas, the new one on %s", len(g.voters)+1, p.nodes[t].Name)})
}

// removeSurplus removes the least valuable replica, but never the leader. A replica that is down is worth less than
// any that is up, so the majority keeps its voters (L2).
func (p *planner) removeSurplus(g *planGroup) {
	if n := &p.nodes[g.leader]; n.State == Decommissioning {
		p.leave(RuleRepair, g.d.ID, "one replica too many, the one that leads on "+n.Name+"; another has to lead first")
		return
	}
	worst := -1
	for _, v := range g.voters {
		if v != g.leader && (worst < 0 || p.compareWorth(g, v, worst) < 0) {
			worst = v
		}
	}
	n := &p.nodes[worst]
	p.do(g, Step{Kind: RemoveReplica, From: n.ID, Rule: RuleRepair,
		Why:    fmt.Sprintf("the shard has %d replicas, %d are wanted, and the one on %s is worth least", len(g.voters), p.wanted(g), n.Name),
		Effect: replicas(len(g.voters) - 1)})
}

// compareWorth is negative if the replica on a is worth less than that on b.
func (p *planner) compareWorth(g *planGroup, a, b int) int {
	na, nb := &p.nodes[a], &p.nodes[b]
	fit := func(n int) int { // 0 is worse
		if p.unfit(g, n) != "" {
			return 0
		}
		return 1
	}
	return cmp.Or(
		-cmp.Compare(na.condition, nb.condition),
		cmp.Compare(fit(a), fit(b)),
		-cmp.Compare(na.State, nb.State), // decommissioning, draining, active
		p.compareCrowding(g.voters, a, -1, b, -1),
		-cmp.Compare(na.data, nb.data),
	)
}

// replace replaces one replica that serves nothing, or moves one away from a node that is gone or leaving, or that
// shares a zone with another replica.
func (p *planner) replace(g *planGroup) {
	for _, v := range g.voters {
		if why := p.unfit(g, v); why != "" {
			p.replaceUnfit(g, v, why)
			return
		}
	}
	for _, v := range g.voters {
		if n := &p.nodes[v]; n.condition == dead {
			p.replaceOne(g, v, fmt.Sprintf("%s is %s", n.Name, p.conditionText(n)), "a replica stays on "+n.Name+", which is dead")
			return
		}
	}
	for _, v := range g.voters {
		if n := &p.nodes[v]; n.State == Decommissioning {
			p.replaceOne(g, v, n.Name+" is decommissioned",
				fmt.Sprintf("%s cannot be emptied, each shard must have %s; add a node or lower %s", n.Name, replicas(p.wanted(g)), SettingReplicationFactor))
			return
		}
	}
	p.spread(g)
}

// replaceUnfit lets another node take the place of a replica that serves nothing. If there is no such node, the
// replica is removed first, provided that the others keep a majority without it and its node could take another one,
// which the next plan adds.
func (p *planner) replaceUnfit(g *planGroup, out int, why string) {
	n := &p.nodes[out]
	why = fmt.Sprintf("the replica on %s serves nothing: %s", n.Name, why)
	t, wait, obstacle := p.target(g, out)
	fit := 0
	for _, v := range g.voters {
		if p.nodes[v].condition == up && p.unfit(g, v) == "" {
			fit++
		}
	}
	switch {
	case t >= 0:
		p.do(g, Step{Kind: MoveReplica, From: n.ID, To: p.nodes[t].ID, Rule: RuleRepair, Bytes: g.load.Bytes, Why: why,
			Effect: fmt.Sprintf("one on %s serves instead", p.nodes[t].Name)})
	case wait:
		p.leave(RuleRepair, g.d.ID, obstacle)
	case p.refuses(n) != "":
		p.leave(RuleRepair, g.d.ID, fmt.Sprintf("%s; it stays, because %s could not take another, %s: %s", why, n.Name, p.refuses(n), obstacle))
	case !p.fits(n, g.bytes):
		p.leave(RuleRepair, g.d.ID, fmt.Sprintf("%s; it stays, because %s has too little disk for another: %s", why, n.Name, obstacle))
	case 2*fit > len(g.voters)-1:
		p.do(g, Step{Kind: RemoveReplica, From: n.ID, Rule: RuleRepair, Why: why,
			Effect: fmt.Sprintf("%s, and room on %s for another", replicas(len(g.voters)-1), n.Name)})
	default:
		p.leave(RuleRepair, g.d.ID, fmt.Sprintf("%s; of the %d others only %d are well, so it cannot go before one is added: %s", why, len(g.voters)-1, fit, obstacle))
	}
}

func (p *planner) replaceOne(g *planGroup, out int, why, stays string) {
	t, wait, obstacle := p.target(g, out)
	if t < 0 {
		if !wait {
			obstacle = stays + ": " + obstacle
		}
		p.leave(RuleRepair, g.d.ID, obstacle)
		return
	}
	from, to := &p.nodes[out], &p.nodes[t]
	p.do(g, Step{Kind: MoveReplica, From: from.ID, To: to.ID, Rule: RuleRepair, Bytes: g.load.Bytes, Why: why,
		Effect: fmt.Sprintf("the replica is on %s instead of %s", to.Name, from.Name)})
}

// spread moves a replica to where fewer others share its zone.
func (p *planner) spread(g *planGroup) {
	bestOut, bestIn, wait := -1, -1, false
	for _, out := range g.voters {
		if p.nodes[out].condition != up {
			continue // it may return; nothing is copied for its sake yet
		}
		in, mustWait, _ := p.target(g, out)
		wait = wait || mustWait
		if in < 0 || p.compareCrowding(g.voters, out, in, -1, -1) >= 0 {
			continue
		}
		if bestOut < 0 || p.compareCrowding(g.voters, out, in, bestOut, bestIn) < 0 {
			bestOut, bestIn = out, in
		}
	}
	switch {
	case bestOut >= 0:
		from, to := &p.nodes[bestOut], &p.nodes[bestIn]
		p.do(g, Step{Kind: MoveReplica, From: from.ID, To: to.ID, Rule: RuleRepair, Bytes: g.load.Bytes,
			Why:    fmt.Sprintf("replicas on %s share a zone more than they must", p.nameList(g.voters)),
			Effect: fmt.Sprintf("%s takes it from %s, and fewer share one", to.Name, from.Name)})
	case wait:
		p.leave(RuleRepair, g.d.ID, p.limitText())
	default:
		p.leave(RuleRepair, g.d.ID, fmt.Sprintf("replicas on %s share a zone, and no node in another can take one", p.nameList(g.voters)))
	}
}

// noteSilent says which nodes are silent, so that their replicas are not replaced yet.
func (p *planner) noteSilent() {
	for i := range p.nodes {
		if n := &p.nodes[i]; n.condition == silent {
			p.note(RuleRepair, "%s is %s; its replicas are not replaced yet", n.Name, p.conditionText(n))
		}
	}
}
