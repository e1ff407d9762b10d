package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// Reshape splits a shard, moves replicas, hands a leadership over and drains a node, one
// after the other, while keys all over the keyspace are being put.
func Reshape(ctx context.Context, c Config) (Outcome, error) {
	out := Outcome{Name: "reshape"}
	if c.Nodes <= replicationFactor || c.Rate < 1 || c.Calm <= settling {
		return out, errors.New("reshape needs a rate of at least 1, a calm of more than 1s, and 4 nodes: a replica moves to one that has none")
	}
	err := c.play(ctx, func(ctx context.Context, s *stage) error {
		if err := s.admin.set(ctx, "rebalance", "off"); err != nil {
			return err
		}
		if err := s.env.Fill(ctx); err != nil {
			return err
		}
		steady := load.Begin(ctx, s.Rate, requestTimeout, s.env.Puts(s.env.Anywhere))
		done, err := s.reshapeAll(ctx, steady)
		trace := steady.Stop()
		if err != nil {
			return err
		}
		out.tell(trace, done, s.Calm)
		return nil
	})
	return out, err
}

// change is one thing that is done to the cluster.
type change struct {
	name string
	// pause in milliseconds is how long keys of one shard may be without service; nil:
	// whatever it is.
	pause *Bound
	// do does it and tells to which of the shards there are now.
	do func(ctx context.Context, s *stage) (touched []uint64, err error)
}

func changes() []change {
	return []change{
		{"split", atMost(50, 10), splitOne},
		{"move follower", nil, func(ctx context.Context, s *stage) ([]uint64, error) { return moveOne(ctx, s, false) }},
		{"move leader", nil, func(ctx context.Context, s *stage) ([]uint64, error) { return moveOne(ctx, s, true) }},
		{"transfer", atMost(100, 20), transferOne},
		{"drain node", nil, drainOne},
	}
}

// changed is a change that was done.
type changed struct {
	change
	from, to time.Duration
	shards   []*adminpb.Shard // that it touched, as they are after it
}

func (s *stage) reshapeAll(ctx context.Context, steady *load.Steady) (done []changed, err error) {
	if err := rest(ctx, s.Calm); err != nil {
		return nil, err
	}
	for _, c := range changes() {
		from := steady.Now()
		touched, err := c.do(ctx, s)
		if err != nil {
			return nil, err
		}
		to := steady.Now()
		s.Log.Info("done", "what", c.name, "took", to-from)
		if err := rest(ctx, s.Calm); err != nil {
			return nil, err
		}
		shards, err := s.admin.shards(ctx)
		if err != nil {
			return nil, err
		}
		shards = slices.DeleteFunc(shards, func(sh *adminpb.Shard) bool { return !slices.Contains(touched, sh.Id) })
		done = append(done, changed{c, from, to, shards})
	}
	return done, nil
}

// settling is how long after a change what it did to requests may show.
const settling = time.Second

// tell adds what clients noticed of each change.
func (o *Outcome) tell(t load.Trace, done []changed, calm time.Duration) {
	line := Line{Name: "puts", Seconds: t.Seconds()}
	// Without anything happening requests are late too; the shard with the longest tells by
	// how much.
	before := t.Between(time.Second, calm)
	o.Figures = append(o.Figures, Figure{Name: "calm: longest request", Value: millis(before.Longest()), Unit: "ms"})
	o.Phases = append(o.Phases, phaseOf("calm", t, time.Second, calm))
	for _, c := range done {
		line.Marks = append(line.Marks, Mark{c.from, c.name})
		end := c.to + settling
		during := t.Between(c.from, end)
		// For as long before it, unless something else shows there.
		calmFrom := c.from - min(end-c.from, calm-settling)
		var pause, gap, calmGap time.Duration
		for _, sh := range c.shards {
			of := t.Where(func(s load.Sample) bool { return owns(sh, load.Key(s.Key)) })
			pause = max(pause, of.Between(c.from, end).Longest())
			gap, calmGap = max(gap, of.Gap(c.from, end)), max(calmGap, of.Gap(calmFrom, c.from))
		}
		others := during.Where(func(s load.Sample) bool {
			return !slices.ContainsFunc(c.shards, func(sh *adminpb.Shard) bool { return owns(sh, load.Key(s.Key)) })
		})
		o.Figures = append(o.Figures,
			Figure{Name: c.name + ": failed requests", Value: float64(during.Failed()), Bound: atMost(0, 0)},
			Figure{Name: c.name + ": longest request of a touched shard", Value: millis(pause), Unit: "ms", Bound: c.pause},
			Figure{Name: c.name + ": longest time a touched shard answered nothing", Value: millis(gap), Unit: "ms", Bound: c.pause},
			Figure{Name: c.name + ": the same before it", Value: millis(calmGap), Unit: "ms"},
			Figure{Name: c.name + ": longest request of the other shards", Value: millis(others.Longest()), Unit: "ms"},
			Figure{Name: c.name + ": took", Value: (c.to - c.from).Seconds(), Unit: "s"},
		)
		o.Phases = append(o.Phases, phaseOf(c.name, t, c.from, end), phaseOf("after "+c.name, t, end, c.to+calm))
	}
	o.Lines = append(o.Lines, line)
}

// splitOne cuts the first shard at a key in its middle.
func splitOne(ctx context.Context, s *stage) ([]uint64, error) {
	shards, err := s.admin.shards(ctx)
	if err != nil {
		return nil, err
	}
	var keys []string
	for i := range s.Keys {
		if key := load.Key(i); owns(shards[0], key) {
			keys = append(keys, key)
		}
	}
	if len(keys) < 2 {
		return nil, errors.New("the first shard has too few keys to split; give more keys")
	}
	slices.Sort(keys)
	middle := keys[len(keys)/2]
	if err := s.admin.split(ctx, shards[0].Id, []byte(middle)); err != nil {
		return nil, err
	}
	shards, err = s.admin.shards(ctx)
	if err != nil {
		return nil, err
	}
	child := owner(shards, middle)
	if string(child.Span.Start) != middle {
		return nil, fmt.Errorf("shard %d was to be split and was not; the node that leads the meta group logged why", shards[0].Id)
	}
	return []uint64{shards[0].Id, child.Id}, nil
}

// moveOne moves a replica of the last shard to a node that has none.
func moveOne(ctx context.Context, s *stage, leader bool) ([]uint64, error) {
	shards, err := s.admin.shards(ctx)
	if err != nil {
		return nil, err
	}
	sh := shards[len(shards)-1]
	from := slices.IndexFunc(sh.Replicas, func(r *adminpb.Replica) bool { return (r.Node == sh.Leader) == leader })
	if from < 0 {
		return nil, fmt.Errorf("shard %d has no replica to move", sh.Id)
	}
	to := s.without(sh)
	return []uint64{sh.Id}, s.admin.move(ctx, sh.Id, sh.Replicas[from].Node, to)
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
func transferOne(ctx context.Context, s *stage) ([]uint64, error) {
	shards, err := s.admin.shards(ctx)
	if err != nil {
		return nil, err
	}
	sh := shards[len(shards)-1]
	to := slices.IndexFunc(sh.Replicas, func(r *adminpb.Replica) bool { return r.Node != sh.Leader })
	return []uint64{sh.Id}, s.admin.transfer(ctx, sh.Id, sh.Replicas[to].Node)
}

// drainOne drains the node that leads most.
func drainOne(ctx context.Context, s *stage) ([]uint64, error) {
	shards, err := s.admin.shards(ctx)
	if err != nil {
		return nil, err
	}
	led := make(map[string][]uint64)
	busiest := shards[0].Leader
	for _, sh := range shards {
		led[sh.Leader] = append(led[sh.Leader], sh.Id)
		if len(led[sh.Leader]) > len(led[busiest]) {
			busiest = sh.Leader
		}
	}
	// The balancer drains, and looks only every ten seconds by default.
	if err := s.admin.set(ctx, "rebalance-interval", "500ms"); err != nil {
		return nil, err
	}
	if err := s.admin.set(ctx, "rebalance", "on"); err != nil {
		return nil, err
	}
	return led[busiest], s.admin.drain(ctx, busiest)
}
