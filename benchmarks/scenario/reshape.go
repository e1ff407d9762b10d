package scenario

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// Reshape splits a shard, merges it again, moves replicas, hands a leadership over and drains a
// node, one after the other, while keys all over the keyspace are being put. It splits as often as
// is asked for, and merges as often: a single pause tells little on a busy machine.
func Reshape(ctx context.Context, c Config, splits int) (Outcome, error) {
	out := Outcome{Name: "reshape"}
	if c.Nodes <= replicationFactor || c.Rate < 1 || c.Calm <= settling || splits < 1 {
		return out, errors.New("reshape needs a rate and splits of at least 1, a calm of more than 1s, and 4 nodes: a replica moves to one that has none")
	}
	err := c.play(ctx, func(ctx context.Context, s *stage) error {
		if err := s.admin.set(ctx, "rebalance", "off"); err != nil {
			return err
		}
		if err := s.env.Fill(ctx); err != nil {
			return err
		}
		steady := load.Begin(ctx, s.Rate, requestTimeout, s.env.Puts(s.env.Anywhere))
		done, err := s.reshapeAll(ctx, steady, splits)
		trace := steady.Stop()
		if err != nil {
			return err
		}
		out.tell(trace, done, s.Calm)
		return out.tellParts(ctx, s)
	})
	return out, err
}

// change is one thing that is done to the cluster.
type change struct {
	name string
	// pause in milliseconds is how long keys of one shard may be without service; nil:
	// whatever it is.
	pause *Bound
	// metric is where nodes tell how long they were; "" for nowhere.
	metric string
	// plan looks for what it is to be done to.
	plan func(ctx context.Context, s *stage) (order, error)
}

// order is a change with all that it needs to know. What that took to find out is no part of the change.
type order struct {
	carryOut func() error
	// touched tells to which of the shards there are now it was done.
	touched func() ([]uint64, error)
}

// orderOn is an order that touches shards which are there before it and after.
func orderOn(carryOut func() error, touched ...uint64) order {
	return order{carryOut, func() ([]uint64, error) { return touched, nil }}
}

const (
	reshapePauses  = "flotilla_reshape_pause_seconds"
	reshapeParts   = "flotilla_reshape_part_seconds"
	handoverPauses = "flotilla_shard_handover_pause_seconds"
)

func changes(splits int) []change {
	return slices.Concat(
		slices.Repeat([]change{{"split", atMost(50, 10), reshapePauses, splitOne}}, splits),
		slices.Repeat([]change{{"merge", atMost(100, 20), reshapePauses, mergeOne}}, splits),
		[]change{
			{"move follower", nil, "", func(ctx context.Context, s *stage) (order, error) { return moveOne(ctx, s, false) }},
			{"move leader", nil, handoverPauses, func(ctx context.Context, s *stage) (order, error) { return moveOne(ctx, s, true) }},
			{"transfer", atMost(100, 20), handoverPauses, transferOne},
			{"drain node", nil, "", drainOne},
		},
	)
}

// changed is a change that was done.
type changed struct {
	change
	calm     time.Duration // in which nothing was done before
	from, to time.Duration
	paused   time.Duration    // as nodes tell
	shards   []*adminpb.Shard // that it touched, as they are after it
}

// end is when what it did to requests has shown.
func (c changed) end() time.Duration { return c.to + settling }

func (s *stage) reshapeAll(ctx context.Context, steady *load.Steady, splits int) (done []changed, err error) {
	all := changes(splits)
	for i, c := range all {
		calm := s.Calm
		if i > 0 && all[i-1].name == c.name {
			calm = settling
		}
		d, err := s.reshape(ctx, steady, c, calm)
		if err != nil {
			return nil, err
		}
		done = append(done, d)
	}
	return done, rest(ctx, s.Calm)
}

// reshape does one change after a calm. Metrics are asked for and shards are looked at before that calm, and once what
// the change did to requests has shown: on a busy machine that delays requests, too.
func (s *stage) reshape(ctx context.Context, steady *load.Steady, c change, calm time.Duration) (changed, error) {
	pausedBefore, err := s.paused(ctx, c)
	if err != nil {
		return changed{}, err
	}
	o, err := c.plan(ctx, s)
	if err != nil {
		return changed{}, err
	}
	if err := rest(ctx, calm); err != nil {
		return changed{}, err
	}
	from := steady.Now()
	if err := o.carryOut(); err != nil {
		return changed{}, err
	}
	to := steady.Now()
	if err := rest(ctx, settling); err != nil {
		return changed{}, err
	}
	touched, err := o.touched()
	if err != nil {
		return changed{}, err
	}
	pausedAfter, err := s.paused(ctx, c)
	if err != nil {
		return changed{}, err
	}
	s.Log.Info("done", "what", c.name, "took", to-from, "pause", pausedAfter-pausedBefore)
	shards, err := s.admin.shards(ctx)
	if err != nil {
		return changed{}, err
	}
	shards = slices.DeleteFunc(shards, func(sh *adminpb.Shard) bool { return !slices.Contains(touched, sh.Id) })
	return changed{change: c, calm: calm, from: from, to: to, paused: pausedAfter - pausedBefore, shards: shards}, nil
}

// paused is how long nodes say that they have paused for changes of the kind, all together.
func (s *stage) paused(ctx context.Context, c change) (time.Duration, error) {
	if c.metric == "" {
		return 0, nil
	}
	sum, err := s.cluster.Metric(ctx, c.metric+"_sum")
	return time.Duration(sum * float64(time.Second)), err
}

// settling is how long after a change what it did to requests may show.
const settling = time.Second

// effect is what clients noticed of a change.
type effect struct {
	failed  int
	longest time.Duration // request of a touched shard
	silence time.Duration // in which one had requests and answered none
	calm    time.Duration // the same before the change
	others  time.Duration // longest request of another shard
	paused  time.Duration // as nodes tell
	took    time.Duration
}

func (c changed) effect(t load.Trace) effect {
	end := c.end()
	during := t.Between(c.from, end)
	e := effect{failed: during.Failed(), paused: c.paused, took: c.to - c.from}
	// For as long before it, unless something else shows there.
	calmFrom := c.from - min(end-c.from, max(c.calm-settling, c.calm/2))
	for _, sh := range c.shards {
		of := t.Where(func(s load.Sample) bool { return owns(sh, load.Key(s.Key)) })
		e.longest = max(e.longest, of.Between(c.from, end).Longest())
		e.silence, e.calm = max(e.silence, of.Silence(c.from, end)), max(e.calm, of.Silence(calmFrom, c.from))
	}
	e.others = during.Where(func(s load.Sample) bool {
		return !slices.ContainsFunc(c.shards, func(sh *adminpb.Shard) bool { return owns(sh, load.Key(s.Key)) })
	}).Longest()
	return e
}

// tell adds what clients noticed of each change; of several of one kind the worst and the median.
func (o *Outcome) tell(t load.Trace, done []changed, calm time.Duration) {
	line := Line{Name: "puts", Seconds: t.Seconds()}
	// Without anything happening requests are late too; the shard with the longest tells by
	// how much.
	before := t.Between(time.Second, calm)
	o.Figures = append(o.Figures, Figure{Name: "calm: longest request", Value: millis(before.Longest()), Unit: "ms"})
	o.Phases = append(o.Phases, phaseOf("calm", t, time.Second, calm))
	for len(done) > 0 {
		n := 1
		for n < len(done) && done[n].name == done[0].name {
			n++
		}
		first, last := done[0], done[n-1]
		effects := make([]effect, n)
		for i, c := range done[:n] {
			effects[i] = c.effect(t)
			line.Marks = append(line.Marks, Mark{c.from, c.name})
		}
		o.tellChange(first.change, effects)
		o.Phases = append(o.Phases, phaseOf(first.name, t, first.from, last.end()), phaseOf("after "+first.name, t, last.end(), last.to+calm))
		done = done[n:]
	}
	o.Lines = append(o.Lines, line)
}

// tellChange adds the figures of a change that was done as often as there are effects.
func (o *Outcome) tellChange(c change, effects []effect) {
	failed := 0
	for _, e := range effects {
		failed += e.failed
	}
	o.Figures = append(o.Figures, Figure{Name: c.name + ": failed requests", Value: float64(failed), Bound: atMost(0, 0)})
	all := func(name string, of func(effect) time.Duration, unit string, bound *Bound) {
		var values []time.Duration
		for _, e := range effects {
			values = append(values, of(e))
		}
		worst, median := worstAndMedian(values)
		value := func(d time.Duration) float64 {
			if unit == "s" {
				return d.Seconds()
			}
			return millis(d)
		}
		o.Figures = append(o.Figures, Figure{Name: c.name + ": " + name, Value: value(worst), Unit: unit, Bound: bound})
		if len(effects) > 1 {
			o.Figures = append(o.Figures, Figure{Name: fmt.Sprintf("%s: %s, median of %d", c.name, name, len(effects)), Value: value(median), Unit: unit})
		}
	}
	if c.metric != "" {
		all("pause, as nodes tell", func(e effect) time.Duration { return e.paused }, "ms", c.pause)
	}
	all("longest request of a touched shard", func(e effect) time.Duration { return e.longest }, "ms", c.pause)
	all("longest time a touched shard had requests and answered none", func(e effect) time.Duration { return e.silence }, "ms", c.pause)
	all("the same before it", func(e effect) time.Duration { return e.calm }, "ms", nil)
	all("longest request of the other shards", func(e effect) time.Duration { return e.others }, "ms", nil)
	all("took", func(e effect) time.Duration { return e.took }, "s", nil)
}

// tellParts adds what the pauses of splits and merges consisted of, as nodes tell.
func (o *Outcome) tellParts(ctx context.Context, s *stage) error {
	for _, p := range [][2]string{
		{"split", "seeds"}, {"split", "begun"},
		{"merge", "frozen"}, {"merge", "durable"}, {"merge", "flush"}, {"merge", "committed"}, {"merge", "subsumed"},
	} {
		of := fmt.Sprintf("{kind=%q,part=%q}", strings.ToUpper(p[0]), p[1])
		sum, err := s.cluster.Metric(ctx, reshapeParts+"_sum"+of)
		if err != nil {
			return err
		}
		count, err := s.cluster.Metric(ctx, reshapeParts+"_count"+of)
		if err != nil {
			return err
		}
		o.Figures = append(o.Figures, Figure{Name: fmt.Sprintf("%s: part of the pause: %s, mean", p[0], p[1]), Value: 1000 * sum / max(count, 1), Unit: "ms"})
	}
	return nil
}

// worstAndMedian are 0 of none.
func worstAndMedian(values []time.Duration) (worst, median time.Duration) {
	if len(values) == 0 {
		return 0, 0
	}
	values = slices.Sorted(slices.Values(values))
	return values[len(values)-1], values[len(values)/2]
}

// splitOne cuts the shard with most keys at one in its middle.
func splitOne(ctx context.Context, s *stage) (order, error) {
	shards, err := s.admin.shards(ctx)
	if err != nil {
		return order{}, err
	}
	var largest []string
	for _, sh := range shards {
		if keys := s.keysOf(sh); len(keys) > len(largest) {
			largest = keys
		}
	}
	if len(largest) < 2 {
		return order{}, errors.New("all shards have too few keys to split; give more keys")
	}
	slices.Sort(largest)
	middle := largest[len(largest)/2]
	parent := owner(shards, middle)
	return order{
		func() error { return s.admin.split(ctx, parent.Id, []byte(middle)) },
		func() ([]uint64, error) {
			shards, err := s.admin.shards(ctx)
			if err != nil {
				return nil, err
			}
			child := owner(shards, middle)
			if string(child.Span.Start) != middle {
				return nil, fmt.Errorf("shard %d was to be split and was not; the node that leads the meta group logged why", parent.Id)
			}
			return []uint64{parent.Id, child.Id}, nil
		},
	}, nil
}

// keysOf are those of the shard that are put.
func (s *stage) keysOf(sh *adminpb.Shard) (keys []string) {
	for i := range s.Keys {
		if key := load.Key(i); owns(sh, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// mergeOne merges the shard that was split off last with its neighbour.
func mergeOne(ctx context.Context, s *stage) (order, error) {
	shards, err := s.admin.shards(ctx)
	if err != nil {
		return order{}, err
	}
	youngest := slices.MaxFunc(shards, func(a, b *adminpb.Shard) int { return cmp.Compare(a.Id, b.Id) })
	into := slices.IndexFunc(shards, func(sh *adminpb.Shard) bool { return bytes.Equal(sh.Span.End, youngest.Span.Start) })
	if into < 0 {
		return order{}, fmt.Errorf("no shard ends where shard %d begins", youngest.Id)
	}
	left := shards[into].Id
	return orderOn(func() error { return s.admin.merge(ctx, left) }, left), nil
}

// moveOne moves a replica of the last shard to a node that has none.
func moveOne(ctx context.Context, s *stage, leader bool) (order, error) {
	shards, err := s.admin.shards(ctx)
	if err != nil {
		return order{}, err
	}
	sh := shards[len(shards)-1]
	from := slices.IndexFunc(sh.Replicas, func(r *adminpb.Replica) bool { return (r.Node == sh.Leader) == leader })
	if from < 0 {
		return order{}, fmt.Errorf("shard %d has no replica to move", sh.Id)
	}
	to := s.without(sh)
	return orderOn(func() error { return s.admin.move(ctx, sh.Id, sh.Replicas[from].Node, to) }, sh.Id), nil
}

// without is a node that has no replica of the shard.
func (s *stage) without(sh *adminpb.Shard) string {
	for i := range s.Nodes {
		name := s.cluster.Name(i)
		if !slices.ContainsFunc(sh.Replicas, func(r *adminpb.Replica) bool { return r.Node == name }) {
			return name
		}
	}
	return "" // there are more nodes than replicas
}

// transferOne has a follower of the last shard lead it.
func transferOne(ctx context.Context, s *stage) (order, error) {
	shards, err := s.admin.shards(ctx)
	if err != nil {
		return order{}, err
	}
	sh := shards[len(shards)-1]
	to := slices.IndexFunc(sh.Replicas, func(r *adminpb.Replica) bool { return r.Node != sh.Leader })
	return orderOn(func() error { return s.admin.transfer(ctx, sh.Id, sh.Replicas[to].Node) }, sh.Id), nil
}

// drainOne drains the node that leads most.
func drainOne(ctx context.Context, s *stage) (order, error) {
	shards, err := s.admin.shards(ctx)
	if err != nil {
		return order{}, err
	}
	led := make(map[string][]uint64)
	busiest := shards[0].Leader
	for _, sh := range shards {
		led[sh.Leader] = append(led[sh.Leader], sh.Id)
		if len(led[sh.Leader]) > len(led[busiest]) {
			busiest = sh.Leader
		}
	}
	return orderOn(func() error {
		// The balancer drains, and looks only every ten seconds by default.
		if err := s.admin.set(ctx, "rebalance-interval", "500ms"); err != nil {
			return err
		}
		if err := s.admin.set(ctx, "rebalance", "on"); err != nil {
			return err
		}
		return s.admin.drain(ctx, busiest)
	}, led[busiest]...), nil
}
