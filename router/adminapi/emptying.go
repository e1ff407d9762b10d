package adminapi

import (
	"fmt"
	"slices"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Values of adminpb.Emptying.meta_group.
const (
	metaLeads   = "leads"
	metaUnknown = "unknown"
)

// emptying is what a node that is not active still has, and why it keeps that according to the plan
// that would be made now.
func (v *View) emptying(n *placement.Node, plan *placement.Decision) *adminpb.Emptying {
	out := &adminpb.Emptying{}
	var left []*shard.Descriptor
	if d := v.Map.Shard(shard.MetaID); d != nil {
		switch leader := v.Load.Shards[d.ID].Leader; {
		case leader == 0:
			out.MetaGroup = metaUnknown
			out.Waits = append(out.Waits, "nobody is known to lead the meta group")
		case leader == n.ID:
			out.MetaGroup = metaLeads
			left = append(left, d)
		}
	}
	for _, d := range v.Map.Shards() {
		if v.Load.Shards[d.ID].Leader == n.ID && n.State == placement.Draining {
			left = append(left, d)
			out.Shards++
		}
	}
	if n.State == placement.Decommissioning {
		left = v.Map.OnNode(n.ID)
		out.Shards = uint32(len(left))
	}
	if len(left) > 0 {
		out.Waits = append(out.Waits, v.waits(left, plan)...)
	}
	return out
}

// waits returns why shards stay where they are.
func (v *View) waits(left []*shard.Descriptor, plan *placement.Decision) (out []string) {
	if !v.Map.Rules().Rebalance {
		out = append(out, "the balancer is off, so nothing begins; flotilla rebalance resume turns it on")
	}
	if v.BalancerWaits != "" {
		out = append(out, "the balancer: "+v.BalancerWaits)
	}
	for _, r := range plan.Reasons {
		if r.Rule != placement.RuleRepair && r.Rule != placement.RuleLeave { // by which nodes are emptied
			continue
		}
		var of []shard.ID
		for _, d := range left {
			if slices.Contains(r.Shards, d.ID) {
				of = append(of, d.ID)
			}
		}
		if len(of) > 0 {
			slices.Sort(of)
			out = append(out, placement.Reason{Rule: r.Rule, Shards: of, Text: r.Text}.String())
		}
	}
	for _, d := range left {
		if o := v.Map.Operator(d.ID); o != nil {
			out = append(out, fmt.Sprintf("shard %s: operator %d (%s, %s) is under way", d.ID, o.ID, o.Kind, o.Phase))
		}
		for _, s := range v.Load.InFlight { // leaders on their way
			if s.Shard == d.ID {
				out = append(out, fmt.Sprintf("shard %s: %s is to lead it and does not yet", d.ID, v.name(s.To)))
			}
		}
	}
	return out
}
