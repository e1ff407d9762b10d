package simulation

import (
	"fmt"
	"math"
	"slices"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/load"
)

// Tick lets time pass: steps get on, nodes report, the planner decides.
func (c *Cluster) Tick() error {
	c.ticks++
	c.now = c.now.Add(c.cfg.Tick)
	c.elect()
	if err := c.fly(); err != nil {
		return err
	}
	if err := c.change(); err != nil {
		return err
	}
	c.last = placement.Plan(c.m, c.report(), c.m.Rules(), c.now)
	for _, s := range c.last.Steps {
		c.begin(s)
	}
	c.stats.sample(c)
	return c.change()
}

// Run lets ticks pass.
func (c *Cluster) Run(ticks int) error {
	for range ticks {
		if err := c.Tick(); err != nil {
			return err
		}
	}
	return nil
}

// restTicks is how long nothing must happen for a cluster to be at rest: longer than a
// shard's figures are not believed after a split (Rules.Settle).
const restTicks = 8

// RunUntilQuiet lets ticks pass until nothing is under way and nothing is wanted any
// more. It returns how many it took to get there.
func (c *Cluster) RunUntilQuiet(ticksMax int) (int, error) {
	rest := 0
	for i := range ticksMax + restTicks {
		if err := c.Tick(); err != nil {
			return i, err
		}
		rest++
		if len(c.last.Steps) > 0 || len(c.flights) > 0 {
			rest = 0
		}
		if rest == restTicks {
			return i + 1 - restTicks, nil
		}
	}
	return ticksMax, fmt.Errorf("not quiet after %d ticks: %d steps under way, the last plan is %+v", ticksMax, len(c.flights), c.last.Steps)
}

// elect replaces leaders whose node is down, as Raft would.
func (c *Cluster) elect() {
	for _, s := range c.shards {
		if s.leader != 0 && c.nodes[s.leader-1].up {
			continue
		}
		c.lead(s, 0)
		up := 0
		for _, r := range s.d.Replicas {
			if !r.Learner && c.nodes[r.Node-1].up {
				up++
			}
		}
		if 2*up <= voters(s.d) {
			continue
		}
		i := slices.IndexFunc(s.d.Replicas, func(r shard.Replica) bool { return !r.Learner && c.nodes[r.Node-1].up })
		c.lead(s, s.d.Replicas[i].Node)
	}
}

// lead changes a shard's leader, who begins to measure.
func (c *Cluster) lead(s *simulated, leader shard.NodeID) {
	s.leader = leader
	if c.cfg.Averaged {
		s.since, s.average = c.now, load.Rate{}
	}
}

func voters(d *shard.Descriptor) int {
	n := 0
	for _, r := range d.Replicas {
		if !r.Learner {
			n++
		}
	}
	return n
}

// report collects what nodes that are up say (S3).
func (c *Cluster) report() *placement.Load {
	told := &placement.Load{
		Since:  c.begun,
		Nodes:  make(map[shard.NodeID]placement.NodeLoad, len(c.nodes)),
		Shards: make(map[shard.ID]placement.ShardLoad, len(c.shards)),
	}
	used := make([]float64, len(c.nodes))
	for _, s := range c.shards {
		if s.leader != 0 {
			c.measure(s)
		}
		for _, r := range s.d.Replicas {
			used[r.Node-1] += float64(s.load.Bytes)
		}
		told.Shards[s.d.ID] = s.load
	}
	for i, n := range c.nodes {
		if n.up {
			n.heard = c.now
		}
		told.Nodes[shard.NodeID(i+1)] = placement.NodeLoad{Heard: n.heard, DiskTotal: diskBytes, DiskFree: diskBytes - int64(used[i])}
	}
	for _, f := range c.flights {
		told.InFlight = append(told.InFlight, f.step)
	}
	return told
}

// measure is what a leader reports of its shard.
func (c *Cluster) measure(s *simulated) {
	from, to := bounds(s.d.Span)
	writes := c.cfg.Writes * c.writes.between(from, to) * (1 + c.cfg.Noise*(2*c.rng.Float64()-1))
	if c.cfg.Averaged {
		s.written += writes * c.cfg.Tick.Seconds()
		s.average.Observe(int64(s.written), c.now)
		writes = s.average.PerSecond()
	}
	if writes >= s.peak || c.ticks-s.peakAt > peakTicks {
		s.peak, s.peakAt = writes, c.ticks
	}
	s.load = placement.ShardLoad{
		Heard: c.now, Leader: s.leader, Bytes: int64(c.cfg.Bytes * c.data.between(from, to)),
		Writes: writes, WriteBytes: writes * writeBytes, PeakWrites: s.peak, PeakWriteBytes: s.peak * writeBytes,
		Middle:    placement.SplitPoint{Key: keyAt(c.data.middle(from, to)), Left: 0.5},
		Balance:   placement.SplitPoint{Key: keyAt(c.writes.middle(from, to)), Left: 0.5},
		SpanSince: s.since, Behind: make(map[shard.NodeID]uint64, len(s.d.Replicas)),
	}
	for _, r := range s.d.Replicas {
		s.load.Behind[r.Node] = 0
		if n := c.nodes[r.Node-1]; !n.up || n.back == c.ticks {
			s.load.Behind[r.Node] = farBehind
		}
	}
}

// begin starts a step. A copy's learner is in the map from now on.
func (c *Cluster) begin(step placement.Step) {
	s := c.shard(step.Shard)
	f := &flight{step: step, left: 1 + math.Floor(float64(step.Bytes)/(copyPerSecond*c.cfg.Tick.Seconds()))}
	c.flights = append(c.flights, f)
	c.stats.begin(c, s, step)
	if step.Kind != placement.AddReplica && step.Kind != placement.MoveReplica {
		return
	}
	if _, has := s.d.ReplicaOn(step.To); has {
		return
	}
	d := changed(s.d)
	d.Replicas = append(d.Replicas, shard.Replica{ID: d.NextReplicaID, Node: step.To, Learner: true})
	d.NextReplicaID++
	s.d = d
	c.touched[s] = true
}

// changed copies a descriptor for its next generation.
func changed(d *shard.Descriptor) *shard.Descriptor {
	next := *d
	next.Generation++
	next.Replicas = slices.Clone(d.Replicas)
	return &next
}

func (c *Cluster) shard(id shard.ID) *simulated { return c.shards[c.indexOf(id)] }

func (c *Cluster) indexOf(id shard.ID) int {
	return slices.IndexFunc(c.shards, func(s *simulated) bool { return s.d.ID == id })
}

// fly gets on with what is under way. What cannot for too long is given up, and
// leaves behind what is there by then.
func (c *Cluster) fly() error {
	var still []*flight
	for _, f := range c.flights {
		s := c.shard(f.step.Shard)
		if s.leader == 0 || f.step.To != 0 && !c.nodes[f.step.To-1].up {
			if f.stalled++; f.stalled < giveUpTicks {
				still = append(still, f)
			}
			continue
		}
		if f.left--; f.left > 0 {
			still = append(still, f)
			continue
		}
		if err := c.land(s, f.step); err != nil {
			return err
		}
	}
	c.flights = still
	return nil
}

// land ends a step.
func (c *Cluster) land(s *simulated, step placement.Step) error {
	d := changed(s.d)
	s.d = d
	c.touched[s] = true
	switch step.Kind {
	case placement.AddReplica, placement.MoveReplica:
		for i := range d.Replicas {
			if d.Replicas[i].Node == step.To {
				d.Replicas[i].Learner = false
			}
		}
		if step.Kind == placement.MoveReplica {
			if s.leader == step.From {
				c.lead(s, step.To)
			}
			d.Replicas = slices.DeleteFunc(d.Replicas, func(r shard.Replica) bool { return r.Node == step.From })
		}
	case placement.RemoveReplica:
		d.Replicas = slices.DeleteFunc(d.Replicas, func(r shard.Replica) bool { return r.Node == step.From })
	case placement.TransferLeader:
		c.lead(s, step.To)
	case placement.Split:
		c.landSplit(s, step)
	case placement.Merge:
		c.landMerge(s, step)
	default:
		return fmt.Errorf("step of %s", step.Kind)
	}
	return nil
}

func (c *Cluster) landSplit(s *simulated, step placement.Step) {
	_, to := bounds(s.d.Span)
	right := c.newShard(positionOf(step.Key), to)
	right.d.Replicas, right.d.NextReplicaID = slices.Clone(s.d.Replicas), s.d.NextReplicaID
	right.leader, right.d.Parent = s.leader, s.d.ID
	s.d.Span.End, s.since, s.peak, s.average = step.Key, c.now, 0, load.Rate{}
	s.d.Epoch++
	i := c.indexOf(s.d.ID)
	right.d.Slot = c.takeSlot(c.shards[i:min(i+2, len(c.shards))]...)
	c.shards = slices.Insert(c.shards, i+1, right)
	c.touched[right] = true
}

func (c *Cluster) landMerge(s *simulated, step placement.Step) {
	i := c.indexOf(step.With)
	other := c.shards[i]
	s.d.Span.End, s.since, s.peak, s.average = other.d.Span.End, c.now, 0, load.Rate{}
	s.d.Epoch++
	c.slots[other.d.Slot]--
	c.shards = slices.Delete(c.shards, i, i+1)
	if i < len(c.shards) && c.shards[i].d.Slot == s.d.Slot { // neighbours now (P3)
		c.slots[s.d.Slot]--
		s.d.Slot = c.takeSlot(c.shards[i])
	}
}
