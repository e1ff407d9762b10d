package node

import (
	"context"
	"slices"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// agent makes this node's replicas match the placement table. It starts replicas that the table gives to the node
// (newborn.go) and removes those that it has taken away (janitor.go). Where this node leads, it tells the group what
// the table says, or transfers leadership. duty.go decides what to do, afresh for each shard at every look; this file
// does it.
type agent struct {
	node  *Node
	cache *router.Cache // set before run
	jobs  *jobs[shard.ID]
	wake  bell
}

const (
	// agentInterval is how often the agent looks without being woken.
	agentInterval = time.Second
	// agentJobs bounds how many replicas start at the same time.
	agentJobs = 16
	// agentRest: the agent rests this many times as long as its last look took. A look visits all shards of the node,
	// and when all of them start, each causes several looks.
	agentRest = 4
)

func newAgent(n *Node) *agent {
	return &agent{node: n, jobs: newJobs[shard.ID](agentJobs), wake: newBell()}
}

// run works until ctx ends.
func (a *agent) run(ctx context.Context) {
	defer a.jobs.wait()
	tick := time.NewTicker(agentInterval)
	defer tick.Stop()
	var known *placement.Map
	var own []*shard.Descriptor // of known
	for {
		began := time.Now()
		m, changed := a.node.table.next()
		if m != known {
			known, own = m, m.OnNode(a.node.self.NodeID)
		}
		a.look(ctx, m, own)
		if pause(ctx, agentRest*time.Since(began)) != nil {
			return
		}
		select {
		case <-changed:
		case <-a.node.host.LeadersChanged():
			a.tellRouter(own)
		case <-a.wake:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// poke makes the agent look again soon.
func (a *agent) poke() { a.wake.ring() }

// tellRouter directs requests to new leaders at once. Otherwise each would first wait for an answer
// of the old one, which may be cut off.
func (a *agent) tellRouter(own []*shard.Descriptor) {
	for _, d := range own {
		r, running := a.node.host.Replica(d.ID)
		if !running {
			continue
		}
		if leader := r.LeaderNode(); leader != 0 {
			a.cache.SetLeader(d.ID, leader)
		}
	}
}

// look starts what is to be done for every shard that the table gives this node or has taken away.
// Work in progress continues.
func (a *agent) look(ctx context.Context, m *placement.Map, own []*shard.Descriptor) {
	if m.ClusterID() == 0 && a.node.meta.runs() {
		a.jobs.begin(ctx, shard.MetaID, a.initialise)
	}
	leaving, disputed := a.leaving(m), m.Disputed()
	for _, l := range leaving {
		a.jobs.begin(ctx, l.Shard, func(ctx context.Context) { a.remove(ctx, l, m) })
	}
	for _, d := range own {
		if d.ID == shard.MetaID {
			a.tendMeta(ctx, d, leaving)
			continue
		}
		a.tend(ctx, m, situation{
			shard: d, compacted: m.Compacted(), reshaping: reshaping(m, d.ID), disputed: slices.Contains(disputed, d.ID),
			blocked: slices.ContainsFunc(leaving, func(l leftover) bool { return l.blocks(d) }),
		})
	}
	for _, o := range m.Operators() {
		if o.Child == nil {
			continue
		}
		if _, here := o.Child.ReplicaOn(a.node.self.NodeID); here {
			a.tend(ctx, m, situation{shard: o.Child, splitOff: true})
		}
	}
}

// tendMeta starts what is to be done for the meta group, of which the table gives this node a
// replica.
func (a *agent) tendMeta(ctx context.Context, d *shard.Descriptor, leaving []leftover) {
	meta, to := a.node.meta, a.node.rightful(d)
	own, _ := d.ReplicaOn(a.node.self.NodeID)
	blocked := slices.ContainsFunc(leaving, func(l leftover) bool { return l.Shard == d.ID })
	switch {
	case meta.leads() && to.ID != 0:
		a.jobs.begin(ctx, d.ID, func(ctx context.Context) { meta.yield(ctx, to) })
	case !meta.runs() && !blocked && d.Generation > 1: // the group's founding members start it themselves
		a.jobs.begin(ctx, d.ID, func(context.Context) { meta.begin(own.ID) })
	}
}

// tend starts what is to be done for a shard, for which s contains what the table says.
func (a *agent) tend(ctx context.Context, m *placement.Map, s situation) {
	r, running := a.node.host.Replica(s.shard.ID)
	if running {
		r.Dispute(s.disputed)
		s = a.situationOf(r, m, s)
	}
	if next := s.duty(); next != dutyNone {
		a.jobs.begin(ctx, s.shard.ID, func(ctx context.Context) { a.do(ctx, next, s, r, m) })
	}
}

// situationOf adds what is known of the running replica.
func (a *agent) situationOf(r *replica.Replica, m *placement.Map, s situation) situation {
	s.running, s.view, s.weaned, s.leads = true, r.View(), r.Weaned(), r.Leads()
	if !s.leads { // the rest matters only on the leader
		return s
	}
	s.unfit, s.clockOff = r.Unfit() != "", a.node.hlc.Distrusted() != ""
	if s.view.Frozen != nil {
		s.merging = mergeGoesOn(m, r.ID(), s.view.Frozen.Operator)
	}
	if s.view.Descriptor != nil {
		s.rightful = a.node.rightful(s.view.Descriptor)
	}
	return s
}

// do carries out the duty. A later look retries what fails.
func (a *agent) do(ctx context.Context, next duty, s situation, r *replica.Replica, m *placement.Map) {
	switch next {
	case dutyStart:
		a.start(ctx, s.shard, m)
	case dutyWean:
		a.wean(ctx, r, s.view.Descriptor.Epoch)
	case dutyResign:
		a.resign(ctx, r, s.shard)
	case dutyThaw:
		a.thaw(ctx, r, s.view.Frozen.Operator)
	case dutyInit:
		a.tell(ctx, r, &shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: s.shard.Proto()})
	case dutyUpdate:
		a.tell(ctx, r, &shardpb.Command{Kind: shardpb.Kind_UPDATE, Descriptor_: s.shard.Proto()})
	case dutyCompact:
		a.tell(ctx, r, &shardpb.Command{
			Kind: shardpb.Kind_COMPACT, Epoch: s.view.Descriptor.Epoch, Revision: int64(s.compacted), Seen: int64(a.node.meta.Renewal()),
		})
	case dutyYield:
		a.handOver(ctx, r, s.rightful)
	}
}

// initialise makes the first map when this node leads a meta group without one.
func (a *agent) initialise(ctx context.Context) {
	if err := a.node.meta.initialise(ctx); err != nil && ctx.Err() == nil {
		a.node.log.Debug("initialising the cluster", "error", err)
	}
}

// resign gives leadership to any node that can lead, because this one may not propose.
func (a *agent) resign(ctx context.Context, r *replica.Replica, d *shard.Descriptor) {
	if to, ok := a.node.heir(d); ok {
		a.handOver(ctx, r, to)
	}
}

// handOver tries to make another replica the leader.
func (a *agent) handOver(ctx context.Context, r *replica.Replica, to shard.Replica) {
	if err := a.node.handOver(ctx, r, to); err != nil && ctx.Err() == nil {
		a.node.log.Debug("leadership stays for now", "shard", r.ID(), "error", err)
	}
}

// tell proposes a command and waits for its outcome.
func (a *agent) tell(ctx context.Context, r *replica.Replica, cmd *shardpb.Command) {
	done := make(chan shard.Result, 1)
	r.Propose(cmd, func(result shard.Result) { done <- result })
	select {
	case result := <-done:
		if result.Err != nil {
			a.node.log.Debug("telling a shard", "shard", r.ID(), "command", cmd.Kind, "error", result.Err)
			return
		}
		a.poke()
	case <-ctx.Done():
	}
}
