package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// controller brings the operators of the placement table to their end while this node
// leads the meta group. It keeps nothing of its own: what an operator has reached is in
// the table and in the groups, and whoever leads next goes on from there. Without
// operators it only waits for the table to change.
//
// Invariants:
//
//	O1  Each step is decided on a map that was read after the one before, and everything
//	    it changes is compare-and-set or may be done twice. So a controller that dies
//	    only delays, and two at a time do not harm.
//	O2  A MOVE's new replica votes only after it has applied what the group had committed.
//	O3  No vote changes before the operator is STARTED, and from then on it cannot be
//	    cancelled: a controller that was held up finds nothing undone behind its back.
//	O4  A replica leaves only while a majority of those that stay answers, and never
//	    while it leads.
//	O5  A shard's descriptor changes only after the group had a leader. So a descriptor of
//	    a later generation than the first says that the group was founded.
//	O6  What a node removes is out of its group and out of the table for good: no older
//	    copy of the table takes away what is there, or brings back what is gone.
type controller struct {
	node    *Node
	runners map[placementpb.OperatorKind]runner

	mu struct {
		sync.Mutex
		running map[uint64]bool   // operators, by ID
		waits   map[uint64]string // what was said last of those that wait
	}
}

// runner carries out operators of one kind.
type runner interface {
	// run goes on with an operator, from what the table and the groups say it has
	// reached, until it is no longer in the table. After an error it is called again.
	run(ctx context.Context, o *placement.Operator) error
}

const (
	// controllerPause is how long an operator rests after an attempt that failed, and until
	// another node takes it up after a change of leaders.
	controllerPause = 300 * time.Millisecond
	// controllerPoll is how long a runner that waits for something pauses between looks.
	controllerPoll = 20 * time.Millisecond
	// controllerAttempts bounds how many operators are worked on at a time.
	controllerAttempts = 16
	// askTimeout bounds one question to a node, orderTimeout one order.
	askTimeout, orderTimeout = time.Second, 5 * time.Second
)

func newController(n *Node) *controller {
	c := &controller{node: n}
	c.runners = map[placementpb.OperatorKind]runner{
		placementpb.OperatorKind_MOVE: &mover{c}, placementpb.OperatorKind_SPLIT: &splitter{c},
		placementpb.OperatorKind_MERGE: &merger{c},
	}
	c.mu.running, c.mu.waits = make(map[uint64]bool), make(map[uint64]string)
	return c
}

// run works until ctx ends.
func (c *controller) run(ctx context.Context) {
	slots := make(chan struct{}, controllerAttempts)
	var attempts sync.WaitGroup
	defer attempts.Wait()
	for {
		m, changed := c.node.table.next()
		operators := m.Operators()
		for _, o := range operators {
			r := c.runners[o.Kind]
			if r == nil || !c.inCharge() || !c.begin(o) {
				continue
			}
			attempts.Go(func() {
				defer c.end(o)
				select {
				case slots <- struct{}{}:
				case <-ctx.Done():
					return
				}
				defer func() { <-slots }()
				c.say(o, r.run(ctx, o))
			})
		}
		var pause <-chan time.Time
		if len(operators) > 0 {
			pause = time.After(controllerPause)
		} else {
			c.forget()
		}
		select {
		case <-changed:
		case <-pause:
		case <-ctx.Done():
			return
		}
	}
}

// inCharge reports whether this node is to carry out operators.
func (c *controller) inCharge() bool { return c.node.cfg.Knobs.AllControl || c.node.meta.leads() }

func (c *controller) begin(o *placement.Operator) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.running[o.ID] {
		return false
	}
	c.mu.running[o.ID] = true
	return true
}

func (c *controller) end(o *placement.Operator) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.mu.running, o.ID)
}

// say logs why an operator waits, once as long as it is the same.
func (c *controller) say(o *placement.Operator, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil, errors.Is(err, errDeposed), errors.Is(err, context.Canceled):
		delete(c.mu.waits, o.ID)
	case c.mu.waits[o.ID] != err.Error():
		c.mu.waits[o.ID] = err.Error()
		c.node.log.Info("operator waits", "operator", o.ID, "kind", o.Kind, "shard", o.Shard, "error", err)
	}
}

// forget drops what was said, when no operator is left.
func (c *controller) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.mu.waits)
}

// errDeposed ends an attempt on a node that no longer leads the meta group.
var errDeposed = errors.New("another node leads the meta group")

// look reads the map through the meta group's log (O1) and finds the operator there; nil
// when it has ended.
func (c *controller) look(ctx context.Context, o *placement.Operator) (*placement.Map, *placement.Operator, error) {
	if !c.inCharge() {
		return nil, nil, errDeposed
	}
	m, err := c.node.meta.barrier(ctx)
	if err != nil {
		return nil, nil, err
	}
	if now := m.Operator(o.Shard); now != nil && now.ID == o.ID {
		return m, now, nil
	}
	return m, nil, nil
}

// step is called before each step of an operator, by name; for tests, which stop there.
func (c *controller) step(ctx context.Context, name string) error {
	if at := c.node.cfg.Knobs.Operator; at != nil {
		return at(ctx, c.node.cfg.Name, name)
	}
	return nil
}

// advance takes the operator to its next phase.
func (c *controller) advance(ctx context.Context, o *placement.Operator, to placementpb.Phase) error {
	_, err := c.node.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_AdvanceOperator{
		AdvanceOperator: &placementpb.AdvanceOperator{ShardId: uint64(o.Shard), OperatorId: o.ID, Phase: to},
	}})
	return err
}

// finish lets the shard go, whose replicas are then compared.
func (c *controller) finish(ctx context.Context, o *placement.Operator) error {
	_, err := c.node.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_FinishOperator{
		FinishOperator: &placementpb.FinishOperator{ShardId: uint64(o.Shard), OperatorId: o.ID},
	}})
	if err == nil {
		c.node.check.soon(o.Shard)
		if o.Child != nil {
			c.node.check.soon(o.Child.ID)
		}
		c.node.balance.metrics.finished.WithLabelValues(o.Kind.String()).Inc()
	}
	return err
}

// client is the way to a node, this one included.
func (c *controller) client(m *placement.Map, id shard.NodeID) (routerpb.PeerClient, error) {
	n := m.Node(id)
	if n == nil || n.State == placement.Removed {
		return nil, fmt.Errorf("node %s is not part of the cluster", id)
	}
	return routerpb.NewPeerClient(c.node.peers.at(n.PeerAddr).Conn()), nil
}

// order has the node do something with its replica of a shard.
func (c *controller) order(ctx context.Context, m *placement.Map, id shard.NodeID, req *routerpb.DirectRequest) error {
	_, err := c.direct(ctx, m, id, req)
	return err
}

// direct is order with an answer.
func (c *controller) direct(ctx context.Context, m *placement.Map, id shard.NodeID, req *routerpb.DirectRequest) (*routerpb.DirectReply, error) {
	client, err := c.client(m, id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	reply, err := client.Direct(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", id, err)
	}
	return reply, nil
}

// orderLeader has the leader of a shard do something.
func (c *controller) orderLeader(ctx context.Context, m *placement.Map, d *shard.Descriptor, req *routerpb.DirectRequest) error {
	leader, err := leaderOf(c.reports(ctx, m, d))
	if err != nil {
		return err
	}
	req.Shard = uint64(d.ID)
	return c.order(ctx, m, leader.Node, req)
}

// report is what a node said about a replica.
type report struct {
	member shard.Replica
	*routerpb.ReplicaReport
}

// reports asks the nodes of a shard about their replicas of it. Those that do not answer,
// or run another one, are left out.
func (c *controller) reports(ctx context.Context, m *placement.Map, d *shard.Descriptor) []report {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	got := make([]*routerpb.ReplicaReport, len(d.Replicas))
	var asking sync.WaitGroup
	for i, r := range d.Replicas {
		client, err := c.client(m, r.Node)
		if err != nil {
			continue
		}
		asking.Go(func() {
			reply, err := client.Report(ctx, &routerpb.ReportRequest{Shards: []uint64{uint64(d.ID)}})
			if err == nil && len(reply.Replicas) == 1 && reply.Replicas[0].Replica == uint64(r.ID) {
				got[i] = reply.Replicas[0]
			}
		})
	}
	asking.Wait()
	var out []report
	for i, r := range d.Replicas {
		if got[i] != nil {
			out = append(out, report{r, got[i]})
		}
	}
	return out
}

// leaderOf picks the replica that leads by its own account, of the latest term.
func leaderOf(reports []report) (shard.Replica, error) {
	led := slices.DeleteFunc(slices.Clone(reports), func(r report) bool { return r.Leader != r.Replica })
	if len(led) == 0 {
		return shard.Replica{}, fmt.Errorf("no replica that answers leads the shard: %w", shard.ErrUnavailable)
	}
	return slices.MaxFunc(led, func(a, b report) int { return cmp.Compare(a.Term, b.Term) }).member, nil
}

// rest waits a little before the next look.
func rest(ctx context.Context) error {
	select {
	case <-time.After(controllerPoll):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
