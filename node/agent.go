package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// agent brings this node's replicas in line with the placement table: it starts those
// the table gives the node, removes those it has taken away (janitor.go), and where one
// leads, it tells the group what the table says (INIT, UPDATE, COMPACT). Every step may
// be repeated.
type agent struct {
	node  *Node
	cache *router.Cache // set before run

	mu struct {
		sync.Mutex
		busy map[shard.ID]bool // a step of the shard is under way
	}
	wake chan struct{}
}

const (
	// agentInterval is how often the agent looks without being woken.
	agentInterval = time.Second
	// agentStarts bounds how many replicas start at the same time.
	agentStarts = 16
	// agentRest is how many times as long as a look took the agent rests after it: it looks at
	// all shards of the node, and when all start each of them gives it several reasons to.
	agentRest = 4
)

func newAgent(n *Node) *agent {
	a := &agent{node: n, wake: make(chan struct{}, 1)}
	a.mu.busy = make(map[shard.ID]bool)
	return a
}

// run works until ctx ends.
func (a *agent) run(ctx context.Context) {
	slots := make(chan struct{}, agentStarts)
	var steps sync.WaitGroup
	defer steps.Wait()
	tick := time.NewTicker(agentInterval)
	defer tick.Stop()
	do := func(id shard.ID, step func(context.Context)) {
		if step == nil || !a.begin(id) {
			return
		}
		steps.Go(func() {
			defer a.end(id)
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			defer func() { <-slots }()
			step(ctx)
		})
	}
	var known *placement.Map
	var own []*shard.Descriptor // of known
	for {
		began := time.Now()
		m, changed := a.node.table.next()
		if m != known {
			known, own = m, m.OnNode(a.node.self.NodeID)
		}
		a.initialise(ctx, m, &steps)
		leaving, disputed := a.leaving(m), m.Disputed()
		for _, r := range leaving {
			do(r.Shard, func(ctx context.Context) { a.remove(ctx, r, m) })
		}
		for _, d := range own {
			if r, running := a.node.host.Replica(d.ID); running {
				r.Dispute(slices.Contains(disputed, d.ID))
			}
			do(d.ID, a.next(d, m, leaving))
		}
		for _, o := range m.Operators() {
			if c := o.Child; c != nil {
				do(c.ID, a.nextChild(c, m))
			}
		}
		select {
		case <-time.After(agentRest * time.Since(began)):
		case <-ctx.Done():
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

// initialise makes the first map when this node leads a meta group without one.
func (a *agent) initialise(ctx context.Context, m *placement.Map, steps *sync.WaitGroup) {
	if m.ClusterID() != 0 || !a.node.meta.runs() || !a.begin(shard.MetaID) {
		return
	}
	steps.Go(func() {
		defer a.end(shard.MetaID)
		if err := a.node.meta.initialise(ctx); err != nil && ctx.Err() == nil {
			a.node.log.Debug("initialising the cluster", "error", err)
		}
	})
}

// next returns what is to be done for the shard, nil for nothing.
func (a *agent) next(d *shard.Descriptor, m *placement.Map, leaving []leftover) func(context.Context) {
	if d.ID == shard.MetaID {
		return a.node.meta.next(d, leaving)
	}
	r, running := a.node.host.Replica(d.ID)
	switch {
	case !running && slices.ContainsFunc(leaving, func(l leftover) bool { return l.blocks(d) }):
		return nil
	case !running:
		return func(ctx context.Context) { a.start(ctx, d, m) }
	}
	view := r.View()
	if view.Descriptor != nil && !r.Weaned() {
		return func(ctx context.Context) { a.wean(ctx, r) }
	}
	if !r.Leads() {
		return nil
	}
	switch {
	case r.Unfit() != "", a.node.hlc.Distrusted() != "":
		return func(ctx context.Context) { a.resign(ctx, r, d) }
	case view.Frozen != nil:
		return a.nextFrozen(r, m)
	case view.Descriptor == nil:
		return func(ctx context.Context) {
			a.tell(ctx, r, &shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: d.Proto()})
		}
	case view.Descriptor.Generation < d.Generation && view.Descriptor.Epoch == d.Epoch:
		return func(ctx context.Context) {
			a.tell(ctx, r, &shardpb.Command{Kind: shardpb.Kind_UPDATE, Descriptor_: d.Proto()})
		}
	case view.Compacted < m.Compacted():
		return func(ctx context.Context) {
			a.tell(ctx, r, &shardpb.Command{Kind: shardpb.Kind_COMPACT, Epoch: view.Descriptor.Epoch, Revision: int64(m.Compacted())})
		}
	case a.shouldLeave(view.Descriptor):
		return func(ctx context.Context) { a.leave(ctx, r, view.Descriptor) }
	}
	return nil
}

// tellRouter lets requests go to new leaders at once. Otherwise each would first wait
// for an answer of the old one, which may be cut off.
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

// resign gives leadership to any node that can lead: this one may not propose.
func (a *agent) resign(ctx context.Context, r *replica.Replica, d *shard.Descriptor) {
	if to, ok := a.node.heir(d); ok {
		a.handOver(ctx, r, to)
	}
}

// shouldLeave reports whether leadership belongs on another node that is well.
func (a *agent) shouldLeave(d *shard.Descriptor) bool {
	preferred := d.PreferredNode
	if preferred == 0 || preferred == a.node.self.NodeID {
		return false
	}
	return a.node.watch.steady(preferred) && !a.node.watch.unfit(preferred, d.ID)
}

// leave has the preferred node lead, if it has a replica that may.
func (a *agent) leave(ctx context.Context, r *replica.Replica, d *shard.Descriptor) {
	if to, ok := d.ReplicaOn(d.PreferredNode); ok && !to.Learner {
		a.handOver(ctx, r, to)
	}
}

// handOver tries to have another replica lead. What fails is tried again by a later look.
func (a *agent) handOver(ctx context.Context, r *replica.Replica, to shard.Replica) {
	if err := a.node.handOver(ctx, r, to); err != nil && ctx.Err() == nil {
		a.node.log.Debug("leadership stays for now", "shard", r.ID(), "error", err)
	}
}

// start starts the node's replica. In a shard whose descriptor is still its first one it
// may be one of those that found the group; later the group was founded (O5), and whoever
// did not start until then joins.
func (a *agent) start(ctx context.Context, d *shard.Descriptor, m *placement.Map) {
	own, _ := d.ReplicaOn(a.node.self.NodeID)
	if !a.mayBegin(ctx, d, own) {
		return
	}
	if err := a.startReplica(d, own, m); errors.Is(err, replica.ErrRemoved) || errors.Is(err, shard.ErrUnavailable) {
		// The table is about to take it away, or a newer one has; or it is just stopping.
		a.node.log.Debug("not starting a replica", "shard", d.ID, "replica", own.ID, "error", err)
		return
	} else if err != nil {
		a.node.fail(err)
		return
	}
	if a.leadsFirst(d) {
		a.node.elect.hold(replica.Held{Shard: d.ID, Replica: own.ID}, a.node.othersOf(d, m))
	}
	a.poke()
}

// leadsFirst reports whether this node is to lead the shard once its group begins.
func (a *agent) leadsFirst(d *shard.Descriptor) bool {
	lead := d.PreferredNode
	if parent, ok := a.node.host.Replica(d.Parent); ok && d.Generation == 1 && parent.LeaderNode() != 0 {
		lead = parent.LeaderNode() // for a split both should be led by the same
	}
	return lead == a.node.self.NodeID
}

func (a *agent) startReplica(d *shard.Descriptor, own shard.Replica, m *placement.Map) error {
	if d.Generation > 1 {
		return a.node.host.Join(d.ID, own.ID, own.Learner)
	}
	members := make(map[shard.ReplicaID]string)
	for _, r := range d.Replicas {
		members[r.ID] = m.Node(r.Node).PeerAddr
	}
	return a.node.host.Start(d.ID, own.ID, members)
}

// tell proposes a command and waits for its outcome; a failure is tried again by the
// next look at the table.
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

// poke makes the agent look again soon.
func (a *agent) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *agent) begin(id shard.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.busy[id] {
		return false
	}
	a.mu.busy[id] = true
	return true
}

func (a *agent) end(id shard.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.mu.busy, id)
}

// missing is what this node still needs before it may serve clients (D4), empty when
// there is nothing.
func (a *agent) missing() string {
	m := a.node.table.Map()
	if m.ClusterID() == 0 {
		return "the placement table"
	}
	for _, d := range m.OnNode(a.node.self.NodeID) {
		if d.ID == shard.MetaID { // the table is known
			continue
		}
		leader, _ := a.node.host.Leader(d.ID)
		r, running := a.node.host.Replica(d.ID)
		own, _ := d.ReplicaOn(a.node.self.NodeID)
		switch {
		case own.Learner: // nobody is sent to it
		case !running:
			return fmt.Sprintf("shard %s to start", d.ID)
		case leader == 0:
			return fmt.Sprintf("a leader of shard %s", d.ID)
		case r.Unfit() != "": // it waits to be replaced
		case r.View().Frozen != nil: // it waits to be taken by its neighbour, or to be thawed
		case r.View().Descriptor == nil:
			return fmt.Sprintf("shard %s to be initialised", d.ID)
		}
	}
	return ""
}
