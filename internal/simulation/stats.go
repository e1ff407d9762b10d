package simulation

import (
	"fmt"
	"strings"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
)

// oscillationTicks is how soon a thing must come back to where it was to count as
// having swung: half an hour.
const oscillationTicks = 180

// moved is a step of a shard for the sake of balance.
type moved struct {
	tick int
	kind placement.Kind
	from shard.NodeID
}

// Ratios are the load of the node that has most, as a multiple of the mean.
type Ratios struct{ Leaders, Work, Bytes float64 }

// Stats are what a run has cost and brought.
type Stats struct {
	// Steps by kind and by rule.
	ByKind map[placement.Kind]int
	ByRule map[placement.Rule]int
	// BytesCopied is what all copies together had to carry.
	BytesCopied float64
	// MovesMost is the most steps for balance that one shard took.
	MovesMost int
	// Oscillations are copies for balance that brought a shard back to a node that such
	// a step had taken it off lately. LeaderSwings counts the same of leaders.
	Oscillations []string
	LeaderSwings int
	// Over is the ratios at each tick, of nodes that are up and active, of what is and not of
	// what is reported.
	Over []Ratios
}

// Stats returns what has been counted since the last ResetStats.
func (c *Cluster) Stats() Stats { return c.stats }

// ResetStats begins to count anew.
func (c *Cluster) ResetStats() {
	c.stats = Stats{}
	for _, s := range c.shards {
		s.history = nil
	}
}

func (st *Stats) begin(c *Cluster, s *simulated, step placement.Step) {
	if st.ByKind == nil {
		st.ByKind, st.ByRule = make(map[placement.Kind]int), make(map[placement.Rule]int)
	}
	st.ByKind[step.Kind]++
	st.ByRule[step.Rule]++
	st.BytesCopied += float64(step.Bytes)
	if step.Rule != placement.RuleLeaders && step.Rule != placement.RuleData {
		return
	}
	for _, h := range s.history {
		if h.kind != step.Kind || h.from != step.To || c.ticks-h.tick > oscillationTicks {
			continue
		}
		if step.Kind == placement.TransferLeader {
			st.LeaderSwings++
		} else {
			st.Oscillations = append(st.Oscillations, fmt.Sprintf("shard %s came back to node %s at tick %d, having left at %d: %s",
				step.Shard, step.To, c.ticks, h.tick, step.Why))
		}
	}
	s.history = append(s.history, moved{c.ticks, step.Kind, step.From})
	st.MovesMost = max(st.MovesMost, len(s.history))
}

// sample notes how even the nodes are now.
func (st *Stats) sample(c *Cluster) {
	all := make([]Ratios, len(c.nodes))
	for _, s := range c.shards {
		from, to := bounds(s.d.Span)
		writes := c.writes.between(from, to)
		if s.leader != 0 {
			all[s.leader-1].Leaders += writes
		}
		for _, r := range s.d.Replicas {
			all[r.Node-1].Work += writes
			all[r.Node-1].Bytes += float64(s.load.Bytes)
		}
	}
	var most, sum Ratios
	n := 0.0
	for i, r := range all {
		if !c.nodes[i].up || placement.NodeState(c.nodes[i].proto.State) != placement.Active {
			continue
		}
		n++
		most = Ratios{max(most.Leaders, r.Leaders), max(most.Work, r.Work), max(most.Bytes, r.Bytes)}
		sum = Ratios{sum.Leaders + r.Leaders, sum.Work + r.Work, sum.Bytes + r.Bytes}
	}
	ratio := func(most, sum float64) float64 { return most * n / max(sum, 1e-9) }
	st.Over = append(st.Over, Ratios{ratio(most.Leaders, sum.Leaders), ratio(most.Work, sum.Work), ratio(most.Bytes, sum.Bytes)})
}

// Last is how even the nodes were at the last tick.
func (st Stats) Last() Ratios { return st.Over[len(st.Over)-1] }

// String is a short account, with the ratios at some twenty ticks.
func (st Stats) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d ticks; steps:", len(st.Over))
	for kind := placement.AddReplica; kind <= placement.Merge; kind++ {
		fmt.Fprintf(&out, " %s %d", kind, st.ByKind[kind])
	}
	fmt.Fprintf(&out, "; %.0f GiB copied; at most %d steps for balance of one shard; %d oscillations, %d of leaders\n",
		st.BytesCopied/(1<<30), st.MovesMost, len(st.Oscillations), st.LeaderSwings)
	for i := 0; i < len(st.Over); i += 1 + len(st.Over)/20 {
		r := st.Over[i]
		fmt.Fprintf(&out, "  tick %4d: most/mean leaders %.2f, work %.2f, bytes %.2f\n", i, r.Leaders, r.Work, r.Bytes)
	}
	return out.String()
}
