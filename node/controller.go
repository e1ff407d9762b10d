package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
)

// controller carries the operators of the placement table to their end while this node leads the meta group. It keeps
// no state of its own: an operator's progress is in the table and in the groups, and the next leader continues from
// there. Without operators it only waits for the table to change.
//
// Invariants:
//
//	O1  Each step is decided on a map that was read after the previous step, and every change
//	    is compare-and-set or idempotent. So a controller that dies causes only a delay, and
//	    two at a time do no harm.
//	O2  A MOVE's new replica votes only after it has applied what the group had committed.
//	O3  No vote changes before the operator is STARTED, and from then on it cannot be
//	    cancelled. So a controller that was delayed never finds its work undone.
//	O4  A replica leaves only while a majority of those that stay answers, and never
//	    while it leads. It keeps its vote (raftnet X10) until a majority of those that
//	    stay has heard of its dismissal: they need it to elect another leader if that
//	    one is lost.
//	O5  A shard's descriptor changes only after the group had a leader. So a descriptor whose
//	    generation is not the first shows that the group was founded.
//	O6  What a node removes has left its group and the table for good: an older copy of the
//	    table neither takes away what is there nor brings back what is gone.
type controller struct {
	node    *Node
	runners map[placementpb.OperatorKind]runner
	// attempts are those in progress, one per operator, by its ID.
	attempts *jobs[uint64]

	mu struct {
		sync.Mutex
		waits map[uint64]string // the last logged reason of each operator that waits
	}
}

// runner carries out operators of one kind.
type runner interface {
	// next takes an operator one step further than the map, which is the newest, and the groups
	// show; or it finds what to wait for, pauses and returns. After an error the operator rests.
	// The attempt has lasted soFar already.
	next(ctx context.Context, m *placement.Map, o *placement.Operator, soFar time.Duration) error
}

const (
	// controllerPause is how long an operator rests after a failed attempt, and until another node
	// takes it up after a leader change.
	controllerPause = 300 * time.Millisecond
	// controllerPoll is the pause between polls of a runner that waits for something.
	controllerPoll = 20 * time.Millisecond
	// controllerAttempts bounds how many operators are worked on at a time.
	controllerAttempts = 16
	// preparePatience is how long a split or merge waits for all replicas before it is
	// cancelled.
	preparePatience = 30 * time.Second
)

func newController(n *Node) *controller {
	c := &controller{node: n, attempts: newJobs[uint64](controllerAttempts)}
	c.runners = map[placementpb.OperatorKind]runner{
		placementpb.OperatorKind_MOVE: &mover{c}, placementpb.OperatorKind_SPLIT: &splitter{c},
		placementpb.OperatorKind_MERGE: &merger{c},
	}
	c.mu.waits = make(map[uint64]string)
	return c
}

// run works until ctx ends.
func (c *controller) run(ctx context.Context) {
	defer c.attempts.wait()
	for {
		m, changed := c.node.table.next()
		operators := m.Operators()
		if c.inCharge() {
			for _, o := range operators {
				c.attempts.begin(ctx, o.ID, func(ctx context.Context) { c.say(o, c.attempt(ctx, o)) })
			}
		}
		var again <-chan time.Time
		if len(operators) > 0 {
			again = time.After(controllerPause)
		} else {
			c.forget()
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// inCharge reports whether this node is to carry out operators.
func (c *controller) inCharge() bool { return c.node.cfg.Knobs.AllControl || c.node.meta.leads() }

// attempt works on an operator until it is no longer in the table, or a step fails.
func (c *controller) attempt(ctx context.Context, o *placement.Operator) error {
	r, began := c.runners[o.Kind], time.Now()
	if r == nil { // a newer version has begun it
		return fmt.Errorf("this version carries out no %s", o.Kind)
	}
	for {
		m, now, err := c.look(ctx, o)
		if err != nil || now == nil {
			return err
		}
		if err := r.next(ctx, m, now, time.Since(began)); err != nil {
			return err
		}
	}
}

// look reads the map through the meta group's log (O1) and finds the operator in it; nil if the operator has ended.
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

// rest pauses before the next look.
func rest(ctx context.Context) error { return pause(ctx, controllerPoll) }

// step is called before each named step of an operator, so that tests can stop there.
func (c *controller) step(ctx context.Context, name string) error {
	if at := c.node.cfg.Knobs.Operator; at != nil {
		return at(ctx, c.node.cfg.Name, name)
	}
	return nil
}

// advance takes the operator to its next phase.
func (c *controller) advance(ctx context.Context, step string, o *placement.Operator, to placementpb.Phase) error {
	if err := c.step(ctx, step); err != nil {
		return err
	}
	_, err := c.node.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_AdvanceOperator{
		AdvanceOperator: &placementpb.AdvanceOperator{ShardId: uint64(o.Shard), OperatorId: o.ID, Phase: to},
	}})
	return err
}

// advanceUnless takes the operator to its next phase unless there is an obstacle. Then it waits,
// and eventually abandons the operator: nothing has happened to the shard yet, but while it is held
// nothing else can.
func (c *controller) advanceUnless(ctx context.Context, obstacle error, soFar time.Duration, step string, o *placement.Operator, to placementpb.Phase) error {
	switch {
	case obstacle == nil:
		return c.advance(ctx, step, o, to)
	case soFar > preparePatience:
		return c.giveUp(ctx, o, obstacle)
	}
	return rest(ctx)
}

// giveUp cancels an operator that can still be undone.
func (c *controller) giveUp(ctx context.Context, o *placement.Operator, why error) error {
	c.node.log.Warn("giving up an operator", "operator", o.ID, "kind", o.Kind, "shard", o.Shard, "with", o.With, "error", why)
	return c.node.CancelOperator(ctx, o.Shard, o.ID)
}

// finish releases the shard, whose replicas are then compared.
func (c *controller) finish(ctx context.Context, step string, o *placement.Operator) error {
	if err := c.step(ctx, step); err != nil {
		return err
	}
	_, err := c.node.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_FinishOperator{
		FinishOperator: &placementpb.FinishOperator{ShardId: uint64(o.Shard), OperatorId: o.ID},
	}})
	if err != nil {
		return err
	}
	c.node.check.soon(o.Shard)
	if o.Child != nil {
		c.node.check.soon(o.Child.ID)
	}
	c.node.balance.metrics.finished.WithLabelValues(o.Kind.String()).Inc()
	return nil
}

// say logs why an operator waits, once per reason.
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

// forget clears what was logged, when no operator is left.
func (c *controller) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.mu.waits)
}
