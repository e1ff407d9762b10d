package placement

import (
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

// Plan decides what should change now. It depends only on its arguments: the balancer, the tool that shows what the
// balancer would do, and the simulator get the same answer. Ties are broken by ID.
//
// It keeps these rules, whatever the load:
//
//	L1  One step per shard at a time; what is in flight counts as done.
//	L2  A shard never loses a voter that its majority needs. Nothing else is asked of it
//	    before a majority of its voters is up.
//	L3  What is not known is not touched: a shard without a fresh report of its
//	    leader, a node that is silent, a disk of unknown size.
//	L4  A step for balance never reverses the order of its two nodes. So every such step
//	    reduces the sum of squares of the measure, and under constant load the plans
//	    come to rest.
//	L5  A step for bytes opens no gap in write load; a step for write load opens at most a
//	    small one in bytes.
//	L6  Limits count what is in flight and what this plan adds.
//	L7  Small neighbours are a pair from when they are to be merged until they are, also while
//	    they wait, unless something prevents it that may last: neither is merged with another
//	    shard, and the right one moves only to the left one's nodes. So gathering neighbours
//	    and balancing come to rest together.
//
// Splits come before moves for balance, because halves are easier to place and a split copies nothing.
// docs/decisions/0008-planning.md gives the reasons.
func Plan(m *Map, load *Load, rules Rules, now time.Time) *Decision {
	p := newPlanner(m, load, rules, now)
	p.repair()
	p.makeSpace()
	p.evacuate()
	if p.informed() {
		p.split()
		small := p.smallNeighbours()
		p.balanceLeaders()
		p.balanceData()
		p.merge(small)
	}
	return p.decision()
}

// planner is the state of one Plan.
type planner struct {
	m     *Map
	rules Rules
	now   time.Time

	nodes  []planNode // ascending by ID
	groups []planGroup
	zones  [][]int // by level of ZoneLabels, then by node: the number of the zone
	voters float64 // of all groups

	moves, transfers, reshapes int // in flight and planned
	merging                    int // shards that still exist but will be merged into a neighbour

	steps []Step
	gaps  []Gap
	left  []leaving
	index map[leavingKey]int // into left
}

// leaving is a reason to leave shards alone. Shards are added to it while the plan is made.
type leaving struct {
	leavingKey
	shards []shard.ID
}

type leavingKey struct {
	rule Rule
	text string
}

// leave records why a shard is left alone.
func (p *planner) leave(rule Rule, id shard.ID, text string) {
	key := leavingKey{rule, text}
	i, found := p.index[key]
	if !found {
		i = len(p.left)
		p.index[key], p.left = i, append(p.left, leaving{leavingKey: key})
	}
	p.left[i].shards = append(p.left[i].shards, id)
}

// note records a reason that concerns the cluster.
func (p *planner) note(rule Rule, format string, args ...any) {
	p.left = append(p.left, leaving{leavingKey: leavingKey{rule, fmt.Sprintf(format, args...)}})
}

func (p *planner) decision() *Decision {
	d := &Decision{Steps: p.steps, Gaps: p.gaps}
	for _, l := range p.left {
		slices.Sort(l.shards)
		d.Reasons = append(d.Reasons, Reason{l.rule, slices.Compact(l.shards), l.text})
	}
	return d
}

// do plans a step for a group. The rest of the plan counts the step as done.
func (p *planner) do(g *planGroup, s Step) {
	s.Shard = g.d.ID
	g.busy = true
	p.settle(g, s)
	p.steps = append(p.steps, s)
}

// unknownMax is the share of shards without a fresh report above which the loads of nodes mean nothing.
const unknownMax = 0.1

// informed reports whether enough is known to compare loads.
func (p *planner) informed() bool {
	unknown, all := 0, 0
	for i := range p.groups {
		if g := &p.groups[i]; !g.meta() {
			all++
			if !g.fresh {
				unknown++
			}
		}
	}
	if float64(unknown) <= unknownMax*float64(all) {
		return true
	}
	text := fmt.Sprintf("%d of %d shards have no fresh report, so loads cannot be compared; nothing is split, balanced or merged until they report", unknown, all)
	p.note(RuleLeaders, "%s", text)
	return false
}
