package node

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// balancer starts the steps that placement.Plan proposes, while this node leads the meta group and the setting
// rebalance is on. The controller and the agents carry them out.
//
// Invariants:
//
//	Q1  A step begins only if its shard is still as it was when the step was decided, by
//	    compare-and-set. So a balancer that was delayed, or two at a time, repeat nothing.
//	Q2  It keeps no state. Everything in progress is in the table: operators, and shards whose
//	    leader is not on the preferred node. So a new balancer continues where the last one was.
//	Q3  When there is nothing to do it changes nothing: an idle cluster stays idle.
type balancer struct {
	node    *Node
	metrics *balancerMetrics
	// failed says why the last round, or steps of it, failed; nil if nothing did.
	failed atomic.Pointer[string]
}

// balancePause is the time between two rounds if the first one started something and that has ended.
const balancePause = time.Second

// run works until ctx ends.
func (b *balancer) run(ctx context.Context) {
	last, began := time.Now(), false
	for {
		m, changed := b.node.table.next()
		rules := m.Rules()
		wait := rules.RebalanceInterval
		if began && len(m.Operators()) == 0 {
			wait = min(wait, balancePause)
		}
		select {
		case <-time.After(time.Until(last.Add(wait))):
		case <-changed: // an operator may have ended, or the interval may have changed
			continue
		case <-ctx.Done():
			return
		}
		last, began = time.Now(), false
		if b.node.cfg.ManualPlacement || !b.node.meta.leads() {
			b.metrics.rests()
			continue
		}
		begun, err := b.turn(ctx, rules.Rebalance)
		if err != nil && ctx.Err() == nil {
			b.node.log.Info("balancing waits", "error", err)
			b.metrics.failed.Inc()
		}
		began = len(begun) > 0
	}
}

// turn is a round, or while the balancer is paused only a look, so that dead nodes are already
// known when it resumes, or when somebody requests a single round.
func (b *balancer) turn(ctx context.Context, on bool) ([]placement.Step, error) {
	b.metrics.paused.Set(map[bool]float64{true: 0, false: 1}[on])
	if on {
		return b.round(ctx)
	}
	_, err := b.decide(ctx)
	return nil, err
}

// note records failures for those who ask.
func (b *balancer) note(err error) {
	if err == nil {
		b.failed.Store(nil)
		return
	}
	why := err.Error()
	b.failed.Store(&why)
}

// waits returns why the last round, or steps of it, failed; empty if nothing did.
func (b *balancer) waits() string {
	if why := b.failed.Load(); why != nil {
		return *why
	}
	return ""
}

// outlook is a plan and the data on which it was made.
type outlook struct {
	m    *placement.Map
	load *placement.Load
	now  time.Time
	*placement.Decision
}

// decide makes a plan for the present table.
func (b *balancer) decide(ctx context.Context) (*outlook, error) {
	m, err := b.node.meta.barrier(ctx)
	b.note(err)
	if err != nil {
		return nil, err
	}
	load, now := assemble(m, b.node.loads.collect(ctx, m)), time.Now()
	load.InFlight = transfers(m, load, now)
	o := &outlook{m, load, now, placement.Plan(m, load, m.Rules(), now)}
	b.metrics.decided(o.Decision)
	return o, nil
}

// round plans once and starts all steps of the plan, which respects the limits. It returns those
// that started.
func (b *balancer) round(ctx context.Context) ([]placement.Step, error) {
	o, err := b.decide(ctx)
	if err != nil {
		return nil, err
	}
	if at := b.node.cfg.Knobs.Planned; at != nil {
		at(ctx, b.node.cfg.Name)
	}
	if o.m.Rules().Rebalance {
		b.abandon(ctx, hopeless(o.m, o.load, o.now))
	}
	var begun []placement.Step
	var refused error
	for i, s := range o.Steps {
		operator, err := b.begin(ctx, o.m, s)
		if err != nil {
			b.metrics.refused.WithLabelValues(s.Kind.String()).Inc()
			b.node.log.Info("a step of the plan did not begin", "step", s.Kind, "shard", s.Shard, "error", err)
			refused = fmt.Errorf("of the plan's %d steps %d have not begun, the last for this: %w", len(o.Steps), i+1-len(begun), err)
			continue
		}
		b.metrics.begun.WithLabelValues(s.Kind.String()).Inc()
		b.node.log.Info("a step of the plan began", "step", s.Kind, "shard", s.Shard, "operator", operator, "rule", s.Rule, "why", s.Why)
		begun = append(begun, s)
	}
	if refused != nil {
		b.note(refused)
	}
	return begun, nil
}

// begin starts a step (Q1). A leadership transfer is not an operator.
func (b *balancer) begin(ctx context.Context, m *placement.Map, s placement.Step) (operator uint64, err error) {
	d, why := m.Shard(s.Shard), fmt.Sprintf("%s: %s", s.Rule, s.Why)
	switch s.Kind {
	case placement.AddReplica, placement.RemoveReplica, placement.MoveReplica:
		return b.node.begin(ctx, placement.BeginMove(d, s.From, s.To, why))
	case placement.Split:
		return b.node.beginSplit(ctx, d, s.Key, why)
	case placement.Merge:
		return b.node.beginMerge(ctx, d, m.Shard(s.With), why)
	case placement.TransferLeader:
		return b.node.begin(ctx, placement.Prefer(d, s.To))
	default:
		return 0, fmt.Errorf("nobody carries out a step of the kind %s", s.Kind)
	}
}

// abandon cancels moves that would wait for ever. The next plan finds the learners that they leave
// behind.
func (b *balancer) abandon(ctx context.Context, moves []*placement.Operator) {
	for _, o := range moves {
		err := b.node.CancelOperator(ctx, o.Shard, o.ID)
		b.node.log.Info("giving up a move to a node that is dead or a replica that is unfit", "operator", o.ID, "shard", o.Shard, "node", o.To, "error", err)
	}
}

// hopeless returns moves to nodes that have died, and moves of unfit learners, that can still be cancelled.
func hopeless(m *placement.Map, load *placement.Load, now time.Time) []*placement.Operator {
	return slices.DeleteFunc(slices.Clone(m.Operators()), func(o *placement.Operator) bool {
		if o.Kind != placementpb.OperatorKind_MOVE || o.Phase != placementpb.Phase_PREPARED || o.To == 0 {
			return true
		}
		heard := load.Nodes[o.To].Heard
		if heard.Before(load.Since) {
			heard = load.Since
		}
		return now.Sub(heard) <= m.Rules().DeadAfter && load.Shards[o.Shard].Unfit[o.To] == ""
	})
}

// transfers returns the leadership transfers in progress: an agent makes the preferred node lead as soon as possible.
// It omits those to a preferred node that should not lead or is far behind; nobody waits for these.
func transfers(m *placement.Map, load *placement.Load, now time.Time) []placement.Step {
	rules := m.Rules()
	var out []placement.Step
	groups := m.Shards()
	if group := m.Shard(shard.MetaID); group != nil {
		groups = append(groups, group)
	}
	for _, d := range groups {
		s, to := load.Shards[d.ID], m.Node(d.PreferredNode)
		if to == nil || to.State != placement.Active || s.Leader == 0 || s.Leader == to.ID || m.Operator(d.ID) != nil {
			continue
		}
		n := load.Nodes[to.ID]
		behind, known := s.Behind[to.ID]
		if !known || behind > rules.LagMax || n.ClockOff || now.Sub(n.Heard) > rules.StaleAfter {
			continue
		}
		out = append(out, placement.Step{Kind: placement.TransferLeader, Shard: d.ID, From: s.Leader, To: to.ID})
	}
	return out
}
