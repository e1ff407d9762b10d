package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

// Costs, in units of one small write.
const (
	// idleCost is the cost of an idle replica: its share of ticks and heartbeats. Measured: 1,024 idle shards took
	// about as much CPU time as 5 writes per second each.
	idleCost = 5
	// writeBytesPerCost is how many bytes cost as much as the write itself.
	writeBytesPerCost = 4096
	// idleBytes is what an empty replica takes in memory and log. Because of it the number of replicas counts when
	// shards are small.
	idleBytes = 1 << 20
)

// condition is what is known about a node.
type condition int

const (
	up     condition = iota
	silent           // not heard of, but not for long enough to be given up
	dead
)

// planNode is a node as it will be when all steps so far are done.
type planNode struct {
	*Node
	load      NodeLoad
	condition condition
	quiet     time.Duration // time since it was heard of
	// noLead says why it should not lead; empty if it may.
	noLead string

	lead  float64 // cost of the shards it leads
	leads float64 // number of shards it leads
	work  float64 // what the replicas count that it has
	data  float64 // what they count in bytes
	free  float64 // bytes of disk; 0 if unknown

	moving int // copies that it sends or receives
}

// planGroup is a shard, or the meta group, as it will be when all steps so far are done.
type planGroup struct {
	d        *shard.Descriptor
	load     ShardLoad
	heard    bool // load was reported recently, by a leader that is a voter
	fresh    bool // and that leader measures it
	settled  bool // load describes the shard's present span
	voters   []int
	learners []int // those that no step in flight concerns
	leader   int   // -1 if unknown
	busy     bool  // a step is in flight or planned
	merging  bool  // that in flight is a merge with its right neighbour
	paired   bool  // it and one of its neighbours are to be merged
	absorbed bool  // and it is the right one
	locked   string
	cost     float64
	bytes    float64
}

func (g *planGroup) meta() bool { return g.d.ID == shard.MetaID }

// work returns what a replica counts: its cost, but for what it costs when idle if that is about to end.
func (g *planGroup) work() float64 {
	if g.absorbed {
		return g.cost - idleCost
	}
	return g.cost
}

// data returns what a replica counts in bytes, likewise.
func (g *planGroup) data() float64 {
	if g.absorbed {
		return g.bytes - idleBytes
	}
	return g.bytes
}

// idle reports whether a step for balance may take the group.
func (g *planGroup) idle() bool {
	return !g.busy && g.locked == "" && g.fresh && g.settled && !g.meta() && len(g.learners) == 0
}

func newPlanner(m *Map, load *Load, rules Rules, now time.Time) *planner {
	p := &planner{m: m, rules: rules, now: now, index: make(map[leavingKey]int)}
	p.addNodes(load)
	p.addZones()
	under := slices.Clone(load.InFlight)
	for _, o := range m.operators {
		under = append(under, o.step())
	}
	inFlight := make(map[shard.ID]Step, len(under))
	for _, s := range under {
		inFlight[s.Shard] = s
		if s.Kind == Merge {
			inFlight[s.With] = Step{}
			if m.Shard(s.With) != nil {
				p.merging++
			}
		}
	}
	p.groups = make([]planGroup, 0, len(m.byStart)+1)
	for d := range m.groups() {
		p.addGroup(d, load.Shards[d.ID])
		g := &p.groups[len(p.groups)-1]
		if s, found := inFlight[d.ID]; found {
			g.busy, g.merging = true, s.Kind == Merge
			p.settle(g, s)
		}
	}
	p.judgeNodes()
	return p
}

func (p *planner) addNodes(load *Load) {
	lost := 0
	for _, n := range p.m.live {
		pn := planNode{Node: n, load: load.Nodes[n.ID]}
		heard := pn.load.Heard
		if heard.Before(load.Since) {
			heard = load.Since
		}
		pn.quiet = p.now.Sub(heard)
		switch {
		case pn.quiet > p.rules.DeadAfter:
			pn.condition = dead
		case pn.quiet > p.rules.StaleAfter || pn.load.Heard.IsZero():
			pn.condition = silent
		}
		if pn.condition != up {
			lost++
		}
		if pn.load.DiskTotal > 0 {
			pn.free = float64(pn.load.DiskFree)
		}
		p.nodes = append(p.nodes, pn)
	}
	if 2*lost <= len(p.nodes) {
		return
	}
	// If most nodes seem gone, it is more likely that reports do not arrive.
	for i := range p.nodes {
		if p.nodes[i].condition == dead {
			p.nodes[i].condition = silent
		}
	}
	p.note(RuleRepair, "%d of %d nodes are silent: that looks like a fault between here and them, so none is taken for dead", lost, len(p.nodes))
}

func (p *planner) addGroup(d *shard.Descriptor, load ShardLoad) {
	g := planGroup{d: d, load: load, leader: -1, locked: p.rules.Locked[d.ID]}
	for _, r := range d.Replicas {
		n := p.node(r.Node)
		if r.Learner {
			g.learners = append(g.learners, n)
			continue
		}
		g.voters = append(g.voters, n)
		if r.Node == load.Leader {
			g.leader = n
		}
	}
	g.heard = g.leader >= 0 && p.now.Sub(load.Heard) <= p.rules.StaleAfter
	g.fresh = g.heard && !load.SpanSince.IsZero()
	g.settled = p.now.Sub(load.SpanSince) >= p.rules.Settle
	g.cost = idleCost + load.Writes + load.WriteBytes/writeBytesPerCost
	g.bytes = idleBytes + float64(load.Bytes)
	for _, n := range g.voters {
		p.hold(&g, n, 1)
	}
	p.lead(&g, g.leader, 1)
	p.groups = append(p.groups, g)
}

// node returns the position of a node that is part of the cluster, or -1.
func (p *planner) node(id shard.NodeID) int {
	i, found := slices.BinarySearchFunc(p.nodes, id, func(n planNode, id shard.NodeID) int {
		return cmp.Compare(n.ID, id)
	})
	if !found {
		return -1
	}
	return i
}

// hold adds a replica to a node, or removes it (sign -1).
func (p *planner) hold(g *planGroup, n int, sign float64) {
	p.voters += sign
	p.nodes[n].work += sign * g.work()
	p.nodes[n].data += sign * g.data()
}

// lead counts the leader of a group. The meta group is not counted: it may be led anywhere.
func (p *planner) lead(g *planGroup, n int, sign float64) {
	if n >= 0 && !g.meta() {
		p.nodes[n].lead += sign * g.cost
		p.nodes[n].leads += sign
	}
}

func (p *planner) setLeader(g *planGroup, n int) {
	p.lead(g, g.leader, -1)
	p.lead(g, n, 1)
	g.leader = n
}

// settle counts a step as done (L1, L6). A step in flight may already be partly done.
func (p *planner) settle(g *planGroup, s Step) {
	from, to := p.node(s.From), p.node(s.To)
	switch s.Kind {
	case AddReplica, MoveReplica:
		p.moves++
		if g.leader >= 0 {
			p.nodes[g.leader].moving++
		}
		if to >= 0 {
			p.nodes[to].moving++
			p.join(g, to)
		}
		if s.Kind == MoveReplica && from >= 0 {
			if g.leader == from && to >= 0 {
				p.setLeader(g, to)
			}
			p.part(g, from)
		}
	case RemoveReplica:
		if from >= 0 {
			p.part(g, from)
		}
	case TransferLeader:
		p.transfers++
		if to >= 0 {
			p.setLeader(g, to)
		}
	case Split, Merge:
		p.reshapes++
	}
}

// join makes a node a voter. It may be a learner now, or already a voter.
func (p *planner) join(g *planGroup, n int) {
	g.learners = slices.DeleteFunc(slices.Clone(g.learners), func(l int) bool { return l == n })
	if slices.Contains(g.voters, n) {
		return
	}
	g.voters = append(slices.Clone(g.voters), n)
	p.hold(g, n, 1)
	if p.nodes[n].load.DiskTotal > 0 {
		p.nodes[n].free -= g.bytes
	}
}

// part removes a voter or a learner.
func (p *planner) part(g *planGroup, n int) {
	g.learners = slices.DeleteFunc(slices.Clone(g.learners), func(l int) bool { return l == n })
	i := slices.Index(g.voters, n)
	if i < 0 {
		return
	}
	g.voters = slices.Delete(slices.Clone(g.voters), i, i+1)
	p.hold(g, n, -1)
	if p.nodes[n].load.DiskTotal > 0 {
		p.nodes[n].free += g.bytes
	}
	if g.leader == n {
		p.setLeader(g, -1)
	}
}

// slowerThanOthers is how many times the median a slow disk's fsync takes. If all are slow the load is the cause, and
// moving leaders would not help.
const slowerThanOthers = 4

// judgeNodes finds nodes that should not lead.
func (p *planner) judgeNodes() {
	var fsyncs []time.Duration
	for i := range p.nodes {
		if n := &p.nodes[i]; n.condition == up && n.load.Fsync > 0 {
			fsyncs = append(fsyncs, n.load.Fsync)
		}
	}
	slices.Sort(fsyncs)
	for i := range p.nodes {
		n := &p.nodes[i]
		switch {
		case n.condition != up:
			n.noLead = "it is " + p.conditionText(n)
		case n.State != Active:
			n.noLead = "it is " + n.State.String()
		case n.load.ClockOff:
			n.noLead = "its clock is off, so it does not propose"
		case n.load.Fsync > p.rules.SlowDisk:
			if median := fsyncs[(len(fsyncs)-1)/2]; n.load.Fsync > slowerThanOthers*median {
				n.noLead = fmt.Sprintf("its fsync takes %s, others' %s", n.load.Fsync, median)
			}
		}
	}
}

// conditionText says how long a node was not heard of.
func (p *planner) conditionText(n *planNode) string {
	switch {
	case n.condition == dead:
		return fmt.Sprintf("dead, not heard of for %s", n.quiet.Round(time.Second))
	case n.condition == silent:
		return fmt.Sprintf("silent for %s (dead after %s)", n.quiet.Round(time.Second), p.rules.DeadAfter)
	default:
		return "up"
	}
}

// low reports whether a node sheds replicas.
func (p *planner) low(n *planNode) bool {
	return n.load.DiskTotal > 0 && n.free < p.rules.LowSpace*float64(n.load.DiskTotal)
}

// refuses returns why a node takes no more replicas at all; empty if it may.
func (p *planner) refuses(n *planNode) string {
	switch {
	case n.noLead != "":
		return n.noLead
	case n.load.DiskTotal == 0:
		return "the size of its disk is not known"
	default:
		return ""
	}
}

// fits reports whether a node would stay well clear of the point at which it sheds replicas.
func (p *planner) fits(n *planNode, bytes float64) bool {
	return n.free-bytes >= 1.5*p.rules.LowSpace*float64(n.load.DiskTotal)
}

// nameList lists nodes by name.
func (p *planner) nameList(nodes []int) string {
	words := make([]string, len(nodes))
	for i, n := range nodes {
		words[i] = p.nodes[n].Name
	}
	return strings.Join(words, ", ")
}
