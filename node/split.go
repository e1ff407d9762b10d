package node

import (
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
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// splitter carries out SPLITs (docs/decisions/0011-splits.md):
//
//	PREPARED   the child's replicas start, empty, where the parent's are; one leads
//	STARTED    all are still well
//	COMMITTED  the parent's leader gives the keys away, its nodes make their seeds
//	           durable, the child's leader writes INIT
//	SEEDED     the logs of both are cut behind the split; the table gets both shards
//
// What happens from the parent's split to the child's INIT, while nobody serves the keys,
// is driven by the node of the parent's leader (Node.divide).
type splitter struct{ *controller }

// SplitSteps are the steps of a SPLIT, as Knobs.Operator gets them.
func SplitSteps() []string {
	return []string{stepGrow, stepCommit, stepDivide, stepSecure, stepBegin, stepSeeded, stepWean, stepSettle}
}

const (
	stepGrow   = "the child's replicas are started"
	stepCommit = "the split is committed"
	stepDivide = "the parent gives the keys away"
	stepSecure = "the seeds are made durable"
	stepBegin  = "the child begins"
	stepSeeded = "the table hears that the child serves"
	stepWean   = "the logs are cut behind the split"
	stepSettle = "the split is finished"
)

const (
	// splitPatience is how long a split waits for all replicas before it is cancelled.
	splitPatience = 30 * time.Second
	// lagMax is how many entries the replicas of a shard may be apart that is to be split or
	// merged.
	lagMax = 1000
	// leadPatience is how long the child may take to be led where the parent is.
	leadPatience = time.Second
	// seedPatience is how long the child waits for a seed that does not come. Then those that
	// have one begin, if they are a majority, and the replica without one has to be replaced.
	seedPatience = 2 * time.Second
	// dividePause is between two attempts while nobody serves the keys.
	dividePause = 2 * time.Millisecond
	// weanPatience is how long a split waits for the logs of nodes that do not answer. They
	// cut them when they are back (agent).
	weanPatience = 5 * time.Second
)

// run implements runner.
func (s *splitter) run(ctx context.Context, o *placement.Operator) error {
	began := time.Now()
	for {
		m, now, err := s.look(ctx, o)
		if err != nil || now == nil {
			return err
		}
		switch now.Phase {
		case placementpb.Phase_PREPARED:
			err = s.prepare(ctx, m, now, began, stepGrow, placementpb.Phase_STARTED)
		case placementpb.Phase_STARTED:
			err = s.prepare(ctx, m, now, began, stepCommit, placementpb.Phase_COMMITTED)
		case placementpb.Phase_COMMITTED:
			err = s.divide(ctx, m, now)
		default:
			err = s.settle(ctx, m, now)
		}
		if err != nil {
			return err
		}
	}
}

// prepare takes the operator to the next phase once all replicas of both shards are well,
// and gives it up when that takes too long. It returns for each look.
func (s *splitter) prepare(ctx context.Context, m *placement.Map, o *placement.Operator, began time.Time, step string, to placementpb.Phase) error {
	err := s.ready(ctx, m, o, time.Since(began) < leadPatience)
	switch {
	case err == nil:
		if err := s.step(ctx, step); err != nil {
			return err
		}
		return s.advance(ctx, o, to)
	case time.Since(began) > splitPatience:
		s.node.log.Warn("giving up a split", "operator", o.ID, "shard", o.Shard, "error", err)
		return s.node.CancelOperator(ctx, o.Shard, o.ID)
	}
	return rest(ctx)
}

// ready says what is missing. together asks for both shards to be led by one node, so
// that no message has to travel between them.
func (s *splitter) ready(ctx context.Context, m *placement.Map, o *placement.Operator, together bool) error {
	parent := m.Shard(o.Shard)
	reports := s.reports(ctx, m, parent)
	leader, err := well(parent, reports)
	if err != nil {
		return err
	}
	if err := abreast(parent, reports); err != nil {
		return err
	}
	childLeader, err := well(o.Child, s.reports(ctx, m, o.Child))
	if err != nil || childLeader.Node == leader.Node || !together {
		return err
	}
	heir, _ := o.Child.ReplicaOn(leader.Node)
	err = s.order(ctx, m, childLeader.Node, &routerpb.DirectRequest{
		Shard: uint64(o.Child.ID), Order: &routerpb.DirectRequest_Transfer{Transfer: &routerpb.Member{Replica: uint64(heir.ID)}},
	})
	return errors.Join(fmt.Errorf("shard %s is led elsewhere than shard %s", o.Child.ID, parent.ID), err)
}

// abreast fails when the replicas of a shard are far apart.
func abreast(d *shard.Descriptor, reports []report) error {
	least, most := reports[0].Applied, reports[0].Applied
	for _, r := range reports {
		least, most = min(least, r.Applied), max(most, r.Applied)
	}
	if most-least > lagMax {
		return fmt.Errorf("the replicas of shard %s are %d entries apart", d.ID, most-least)
	}
	return nil
}

// well returns the leader of a shard whose replicas all answer and follow it.
func well(d *shard.Descriptor, reports []report) (shard.Replica, error) {
	leader, err := leaderOf(reports)
	if err != nil {
		return shard.Replica{}, fmt.Errorf("shard %s: %w", d.ID, err)
	}
	following := 0
	for _, r := range reports {
		if r.Leader == uint64(leader.ID) && r.Unfit == "" {
			following++
		}
	}
	if following < len(d.Replicas) {
		return shard.Replica{}, fmt.Errorf("of the %d replicas of shard %s %d are well: %w", len(d.Replicas), d.ID, following, shard.ErrUnavailable)
	}
	return leader, nil
}

// divide has the parent's leader do what there is no way back from. Whatever was done of
// it before is passed over.
func (s *splitter) divide(ctx context.Context, m *placement.Map, o *placement.Operator) error {
	parent := m.Shard(o.Shard)
	leader, err := leaderOf(s.reports(ctx, m, parent))
	if err == nil {
		err = s.order(ctx, m, leader.Node, &routerpb.DirectRequest{
			Shard: uint64(o.Shard), Order: &routerpb.DirectRequest_Split{Split: &routerpb.Split{
				Descriptor_: o.Rest(parent).Proto(), Child: o.Child.Proto(),
			}},
		})
	}
	if err != nil {
		s.node.log.Info("a split goes on", "operator", o.ID, "shard", o.Shard, "error", err)
		return rest(ctx)
	}
	if err := s.step(ctx, stepSeeded); err != nil {
		return err
	}
	return s.advance(ctx, o, placementpb.Phase_SEEDED)
}

// settle ends the operator when no log goes back to before the split, but for those of a
// few nodes that are down. Whoever joins one of the shards later gets its data.
func (s *splitter) settle(ctx context.Context, m *placement.Map, o *placement.Operator) error {
	if err := s.step(ctx, stepWean); err != nil {
		return err
	}
	for _, d := range []*shard.Descriptor{o.Rest(m.Shard(o.Shard)), o.Child} {
		if err := s.wean(ctx, m, d); err != nil {
			return err
		}
	}
	if err := s.step(ctx, stepSettle); err != nil {
		return err
	}
	return s.finish(ctx, o)
}

// wean has the logs of a shard cut behind the split or merge that gave it its epoch.
func (c *controller) wean(ctx context.Context, m *placement.Map, d *shard.Descriptor) error {
	if err := c.arrive(ctx, m, d); err != nil {
		return err
	}
	weaned := c.everyReplica(ctx, d, weanPatience, func(ctx context.Context, r shard.Replica) error {
		return c.order(ctx, m, r.Node, &routerpb.DirectRequest{Shard: uint64(d.ID), Order: &routerpb.DirectRequest_Wean{Wean: &routerpb.Wean{}}})
	})
	return weaned.majority(d)
}

// arrive waits, not for long, until all replicas that answer have applied it: one that has
// not when the logs are cut would have to be sent all the data.
func (c *controller) arrive(ctx context.Context, m *placement.Map, d *shard.Descriptor) error {
	for began := time.Now(); time.Since(began) < weanPatience; {
		behind := slices.ContainsFunc(c.reports(ctx, m, d), func(r report) bool { return r.Epoch < d.Epoch && r.Unfit == "" })
		if !behind {
			return nil
		}
		if err := rest(ctx); err != nil {
			return err
		}
	}
	return nil
}

// tally is what came of asking every replica.
type tally struct {
	done []shard.Replica // did it
	errs []error
}

// majority fails unless most did what they were asked for.
func (t tally) majority(d *shard.Descriptor) error {
	if len(t.done) > len(d.Replicas)/2 {
		return nil
	}
	return fmt.Errorf("%d of the %d replicas of shard %s: %w", len(t.done), len(d.Replicas), d.ID, errors.Join(t.errs...))
}

// all fails unless every replica did.
func (t tally) all(d *shard.Descriptor) error {
	if len(t.errs) == 0 {
		return nil
	}
	return fmt.Errorf("%d of the %d replicas of shard %s: %w", len(t.done), len(d.Replicas), d.ID, errors.Join(t.errs...))
}

// everyReplica asks all nodes of a shard at the same time, again and again until it has
// been done or patience ends.
func (c *controller) everyReplica(ctx context.Context, d *shard.Descriptor, patience time.Duration, ask func(context.Context, shard.Replica) error) tally {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	errs := make([]error, len(d.Replicas))
	var asking sync.WaitGroup
	for i, r := range d.Replicas {
		asking.Go(func() { errs[i] = until(ctx, func() error { return ask(ctx, r) }) })
	}
	asking.Wait()
	var t tally
	for i, err := range errs {
		if err == nil {
			t.done = append(t.done, d.Replicas[i])
		} else {
			t.errs = append(t.errs, err)
		}
	}
	return t
}

// until repeats what fails. The error is the last one.
func until(ctx context.Context, attempt func() error) error {
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(dividePause):
		case <-ctx.Done():
			return err
		}
	}
}

// divide splits a shard that this node leads and brings the child to serve. In between
// nobody serves the child's keys, so every step follows at once on the one before.
func (n *Node) divide(ctx context.Context, r *replica.Replica, rest, child *shard.Descriptor) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := n.control.step(ctx, stepDivide); err != nil {
		return err
	}
	secured := n.secureSeeds(ctx, rest, child) // on their way before the split, for which they wait there
	// They begin with what is not durable of before, which takes about as long here.
	if err := n.engine.Sync(); err != nil {
		return err
	}
	if err := r.Split(ctx, rest, child); err != nil {
		return err
	}
	gave := time.Now()
	if err := n.control.step(ctx, stepSecure); err != nil {
		return err
	}
	seeds := <-secured
	if err := seeds.majority(child); err != nil {
		return err
	}
	durable := time.Now()
	if err := n.control.step(ctx, stepBegin); err != nil {
		return err
	}
	if err := n.initialise(ctx, child, seeds.done); err != nil {
		return err
	}
	n.log.Info("a shard was split", "shard", rest.ID, "child", child.ID, "key", string(child.Span.Start),
		"pause", time.Since(gave), "seeds", durable.Sub(gave))
	return nil
}

// secureSeeds has all replicas of the parent make the child's seed durable, each as soon as it
// has applied the split.
func (n *Node) secureSeeds(ctx context.Context, parent, child *shard.Descriptor) <-chan tally {
	m, done := n.table.Map(), make(chan tally, 1)
	go func() {
		done <- n.control.everyReplica(ctx, child, seedPatience, func(ctx context.Context, to shard.Replica) error {
			return n.control.order(ctx, m, to.Node, &routerpb.DirectRequest{
				Shard: uint64(parent.ID), Order: &routerpb.DirectRequest_SecureSeed{SecureSeed: child.Proto()},
			})
		})
	}()
	return done
}

// initialise has the child's leader, which has to be one with a seed, give it its descriptor.
func (n *Node) initialise(ctx context.Context, child *shard.Descriptor, seeded []shard.Replica) error {
	m := n.table.Map()
	return until(ctx, func() error {
		leader, _ := n.host.Leader(child.ID)
		if leader == 0 {
			return fmt.Errorf("shard %s has no leader: %w", child.ID, shard.ErrUnavailable)
		}
		order := &routerpb.DirectRequest{Shard: uint64(child.ID), Order: &routerpb.DirectRequest_Initialise{Initialise: child.Proto()}}
		able := slices.ContainsFunc(seeded, func(r shard.Replica) bool { return r.ID == leader })
		if !able { // INIT would poison it, and nobody could serve
			order.Order = &routerpb.DirectRequest_Transfer{Transfer: &routerpb.Member{Replica: uint64(seeded[0].ID)}}
		}
		err := n.control.order(ctx, m, child.NodeOf(leader), order)
		if err == nil && !able {
			err = fmt.Errorf("replica %d of shard %s leads without a seed: %w", leader, child.ID, shard.ErrUnavailable)
		}
		return err
	})
}
