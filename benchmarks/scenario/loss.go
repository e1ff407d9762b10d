package scenario

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// snapshotMetric counts the bytes of snapshots that nodes sent.
const snapshotMetric = "flotilla_shard_snapshot_sent_bytes_total"

// logEntries makes logs so short that the new replicas receive snapshots, as on clusters that have
// run for longer.
const logEntries = "200"

// Loss kills a node for good and waits until the others hold all its replicas. grace is how long a
// node may be silent before it counts as dead. Clients are connected to the others.
func Loss(ctx context.Context, c Config, grace time.Duration) (Outcome, error) {
	out := Outcome{Name: "loss"}
	if c.Nodes <= replicationFactor || c.Rate < 1 || c.Calm < calmMin {
		return out, errors.New("loss needs a rate of at least 1, a calm of 1s, and 4 nodes: 3 must be left to hold 3 replicas")
	}
	c.Flags = append(c.Flags, "--raft-log-entries", logEntries)
	err := c.play(ctx, func(ctx context.Context, s *stage) error {
		victim, err := s.keepFrom(ctx)
		if err != nil {
			return err
		}
		for _, setting := range [][2]string{{"stale-after", min(grace, 5*time.Second).String()}, {"dead-after", grace.String()}, {"rebalance-interval", "1s"}} {
			if err := s.admin.set(ctx, setting[0], setting[1]); err != nil {
				return err
			}
		}
		if err := s.env.Fill(ctx); err != nil {
			return err
		}
		steady := load.Begin(ctx, s.Rate, requestTimeout, s.env.Puts(s.env.Anywhere))
		l, err := s.lose(ctx, steady, victim)
		trace := steady.Stop()
		if err != nil {
			return err
		}
		out.tellLoss(trace, l, grace)
		return nil
	})
	return out, err
}

// keepFrom chooses the node that will be lost, one that does not carry the meta group, and
// connects to the others.
func (s *stage) keepFrom(ctx context.Context) (victim int, err error) {
	nodes, err := s.admin.nodes(ctx)
	if err != nil {
		return 0, err
	}
	last := nodes[len(nodes)-1].Name
	endpoints := slices.Clone(s.cluster.Endpoints())
	for victim = range s.Nodes {
		if s.cluster.Name(victim) == last {
			break
		}
	}
	return victim, s.connect(ctx, slices.Delete(endpoints, victim, victim+1))
}

// lost is how a loss went; times are the load's.
type lost struct {
	killed, whole time.Duration
	// touched are the shards that the node led, the others those it did not.
	touched, others []*adminpb.Shard
	held            int // replicas that it had
	copied          float64
}

func (s *stage) lose(ctx context.Context, steady *load.Steady, victim int) (l lost, err error) {
	if err := rest(ctx, s.Calm); err != nil {
		return l, err
	}
	name := s.cluster.Name(victim)
	shards, err := s.admin.shards(ctx)
	if err != nil {
		return l, err
	}
	for _, sh := range shards {
		if slices.ContainsFunc(sh.Replicas, func(r *adminpb.Replica) bool { return r.Node == name }) {
			l.held++
		}
		if sh.Leader == name {
			l.touched = append(l.touched, sh)
		} else {
			l.others = append(l.others, sh)
		}
	}
	if err := s.cluster.Kill(victim); err != nil {
		return l, err
	}
	l.killed = steady.Now()
	before, err := s.cluster.Metric(ctx, snapshotMetric)
	if err != nil {
		return l, err
	}
	s.Log.Info("killed", "node", name, "replicas", l.held, "led", len(l.touched))
	if err := until(ctx, "all shards are whole again", func(ctx context.Context) (bool, error) {
		shards, err := s.admin.shards(ctx)
		return err == nil && !slices.ContainsFunc(shards, func(sh *adminpb.Shard) bool {
			return healthy(sh, name) < replicationFactor || sh.Leader == ""
		}), err
	}); err != nil {
		return l, err
	}
	l.whole = steady.Now()
	s.Log.Info("whole again", "after", l.whole-l.killed)
	after, err := s.cluster.Metric(ctx, snapshotMetric)
	if err != nil {
		return l, err
	}
	l.copied = after - before
	return l, rest(ctx, s.Calm)
}

// untouchedShare is how much of the load of shards that the lost node did not lead must continue.
const untouchedShare = 0.9

func (o *Outcome) tellLoss(t load.Trace, l lost, grace time.Duration) {
	in := func(shards []*adminpb.Shard) load.Trace {
		return t.Where(func(s load.Sample) bool {
			return slices.ContainsFunc(shards, func(sh *adminpb.Shard) bool { return owns(sh, load.Key(s.Key)) })
		})
	}
	touched, others := in(l.touched), in(l.others)
	o.Phases = append(o.Phases,
		phaseOf("before, all shards", t, time.Second, l.killed),
		phaseOf("from the loss until whole, shards it led", touched, l.killed, l.whole),
		phaseOf("from the loss until whole, others", others, l.killed, l.whole),
		phaseOf("after, all shards", t, l.whole, t.End()),
	)
	var gaps []time.Duration
	for _, sh := range l.touched {
		gaps = append(gaps, in([]*adminpb.Shard{sh}).Gap(l.killed, l.whole))
	}
	worst, median := worstAndMedian(gaps)
	before := perSecond(others, time.Second, l.killed)
	o.Figures = append(o.Figures,
		Figure{Name: "replicas lost", Value: float64(l.held)},
		Figure{Name: "shards it led", Value: float64(len(l.touched))},
		Figure{Name: "until all shards had 3 healthy replicas", Value: (l.whole - l.killed).Seconds(), Unit: "s"},
		Figure{Name: "of which after the grace time", Value: (l.whole - l.killed - grace).Seconds(), Unit: "s"},
		Figure{Name: "sent as whole shards", Value: l.copied / (1 << 20), Unit: "MiB"},
		Figure{Name: "sent as whole shards, each of the replicas lost", Value: l.copied / (1 << 20) / float64(max(1, l.held)), Unit: "MiB"},
		Figure{Name: "shards it led: longest time one answered nothing", Value: millis(worst), Unit: "ms"},
		Figure{Name: "shards it led: longest time one answered nothing, median of them", Value: millis(median), Unit: "ms"},
		Figure{Name: "failed requests to shards it led", Value: float64(touched.Between(l.killed-requestTimeout, l.whole).Failed())},
		Figure{Name: "failed requests to others", Value: float64(others.Failed()), Bound: atMost(0, 0)},
		Figure{Name: "others: answers a second, of those before", Value: 100 * perSecond(others, l.killed, l.whole) / before, Unit: "%", Bound: atLeast(100 * untouchedShare)},
		Figure{Name: "others: worst second, of those before", Value: 100 * worstSecond(others, l.killed, l.whole) / before, Unit: "%"},
	)
	o.Lines = append(o.Lines, Line{Name: "puts", Seconds: t.Seconds(), Marks: []Mark{{l.killed, "node killed"}, {l.whole, "all shards whole"}}})
}
