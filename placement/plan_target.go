package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// addZones numbers the zones of each level. A zone is identified by its whole path, so racks of the same name in two
// zones are different. Nodes without the label form one zone.
func (p *planner) addZones() {
	paths := make([]string, len(p.nodes))
	for _, label := range p.rules.ZoneLabels {
		numbers := make(map[string]int)
		level := make([]int, len(p.nodes))
		for i := range p.nodes {
			paths[i] += "\x00" + p.nodes[i].Labels[label]
			if _, known := numbers[paths[i]]; !known {
				numbers[paths[i]] = len(numbers)
			}
			level[i] = numbers[paths[i]]
		}
		if len(numbers) > 1 {
			p.zones = append(p.zones, level)
		}
	}
}

// crowding counts, on one level, the pairs of nodes that share a zone, with out replaced by in (either may be -1).
// Fewer is better.
func (p *planner) crowding(level int, nodes []int, out, in int) int {
	zone, pairs := p.zones[level], 0
	for i, a := range nodes {
		if a == out {
			continue
		}
		if in >= 0 && zone[a] == zone[in] {
			pairs++
		}
		for _, b := range nodes[:i] {
			if b != out && zone[a] == zone[b] {
				pairs++
			}
		}
	}
	return pairs
}

// compareCrowding compares two changes of the same replicas, by the most important level first.
func (p *planner) compareCrowding(nodes []int, out, in, otherOut, otherIn int) int {
	for level := range p.zones {
		if c := cmp.Compare(p.crowding(level, nodes, out, in), p.crowding(level, nodes, otherOut, otherIn)); c != 0 {
			return c
		}
	}
	return 0
}

// target finds the node for a replica of g, in place of the one on out (-1: an additional one). The best node spreads
// the group over zones, and then has the least data. If there is none, why says so; wait means that a limit is the
// only obstacle. If the better nodes are at their limit, a node in a worse zone is not taken instead, because the
// replica would have to move again.
func (p *planner) target(g *planGroup, out int) (best int, wait bool, why string) {
	free := -1 // the best that is not at its limit
	best = -1  // the best, at its limit or not
	for t := range p.nodes {
		n := &p.nodes[t]
		if g.has(t) || p.refuses(n) != "" || !p.fits(n, g.bytes) {
			continue
		}
		better := -1
		if best >= 0 {
			better = p.compareCrowding(g.voters, out, t, out, best)
		}
		if better > 0 {
			continue
		}
		if better < 0 {
			best, free = t, -1
		}
		if !p.atLimit(g, t) && (free < 0 || n.data < p.nodes[free].data) {
			free = t
		}
	}
	switch {
	case free >= 0:
		return free, false, ""
	case best >= 0:
		return -1, true, p.limitText()
	default:
		return -1, false, p.noTarget(g)
	}
}

func (g *planGroup) has(n int) bool {
	return slices.Contains(g.voters, n) || slices.Contains(g.learners, n)
}

// atLimit reports whether copying g to t has to wait (L6). The leader sends the copy.
func (p *planner) atLimit(g *planGroup, t int) bool {
	return p.moves >= p.rules.MovesMax || p.nodes[t].moving >= p.rules.MovesPerNode ||
		g.leader >= 0 && p.nodes[g.leader].moving >= p.rules.MovesPerNode
}

func (p *planner) limitText() string {
	return fmt.Sprintf("waiting: at most %d copies at once and %d per node", p.rules.MovesMax, p.rules.MovesPerNode)
}

// noTarget says why each node is not a target.
func (p *planner) noTarget(g *planGroup) string {
	var holding, small []int
	var others []string
	for t := range p.nodes {
		n := &p.nodes[t]
		switch why := p.refuses(n); {
		case g.has(t) && why == "":
			holding = append(holding, t)
		case g.has(t):
		case why != "":
			others = append(others, n.Name+": "+why)
		default:
			small = append(small, t)
		}
	}
	var parts []string
	if len(holding) > 0 {
		parts = append(parts, p.nameList(holding)+" hold it already")
	}
	if len(small) > 0 {
		parts = append(parts, p.nameList(small)+" would have too little disk left")
	}
	parts = append(parts, others...)
	if len(parts) == 0 {
		return "there is no other node"
	}
	return "no node can take it: " + strings.Join(parts, "; ")
}
