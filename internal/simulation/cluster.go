package simulation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/load"
)

// Config is a cluster at its beginning.
type Config struct {
	Seed          uint64
	Nodes, Shards int
	// Zones are given to nodes in turn; 0 is none.
	Zones int
	// Bytes are all shards' together, one replica each; they lie evenly.
	Bytes float64
	// Writes are all shards' together, per second. They follow a power law over the
	// keyspace: Skew 0 is even.
	Writes float64
	Skew   float64
	// Noise is by how much of itself a shard's reported rate is off, each tick anew.
	Noise float64
	// Averaged has leaders report what they have measured, as nodes do: an average that begins
	// anew with each leader and each span. Otherwise they report what is.
	Averaged bool
	// Tick is how often nodes report and plans are made. Default 10 s.
	Tick time.Duration
	// Settings change the rules.
	Settings map[string]string
}

const (
	diskBytes     = 1 << 40
	copyPerSecond = 50 << 20 // bytes of one copy
	giveUpTicks   = 6        // of a copy that does not get on
	peakTicks     = 360      // over which peaks are kept: an hour, like Rules.MergeWait
	farBehind     = 1 << 20  // log entries of a replica that was down
	writeBytes    = 256
	replicaFactor = 3
	slotCount     = 256
)

// Cluster is the simulated cluster. It is not safe for concurrent use.
type Cluster struct {
	cfg   Config
	rng   *rand.Rand
	now   time.Time
	begun time.Time
	ticks int

	m       *placement.Map
	nodes   []*node        // node i has ID i+1
	shards  []*simulated   // in key order
	flights []*flight      // what is being carried out
	next    shard.ID       // the lowest shard ID that was never given
	slots   [slotCount]int // how many shards have each
	touched map[*simulated]bool
	writes  density
	data    density

	stats Stats
	last  *placement.Decision
}

type node struct {
	proto *placementpb.Node
	up    bool
	heard time.Time
	back  int // the tick it came back; its replicas are behind for one more
}

type simulated struct {
	d       *shard.Descriptor
	leader  shard.NodeID
	load    placement.ShardLoad
	since   time.Time
	peak    float64
	peakAt  int
	written float64 // in all, for average
	average load.Rate
	history []moved
}

// flight is a step on its way.
type flight struct {
	step    placement.Step
	left    float64 // ticks of undisturbed work
	stalled int
}

// New makes the cluster, with replicas and leaders spread over nodes in turn.
func New(cfg Config) (*Cluster, error) {
	if cfg.Tick == 0 {
		cfg.Tick = 10 * time.Second
	}
	begun := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := &Cluster{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 1)), now: begun, begun: begun.Add(-24 * time.Hour),
		next: shard.FirstDataID, touched: make(map[*simulated]bool), data: zipf(rand.New(rand.NewPCG(cfg.Seed, 2)), 0),
	}
	c.writes = zipf(c.rng, cfg.Skew)
	p := &placementpb.Map{Format: 1, Version: 1, ClusterId: 1, Settings: &placementpb.Settings{Version: 1}}
	for range cfg.Nodes {
		p.Nodes = append(p.Nodes, c.newNode(1))
	}
	for i := range cfg.Shards {
		s := c.newShard(float64(i)/float64(cfg.Shards), float64(i+1)/float64(cfg.Shards))
		s.d.Slot = c.takeSlot(c.shards[max(0, i-1):]...)
		for r := range replicaFactor {
			s.d.Replicas = append(s.d.Replicas, shard.Replica{ID: shard.ReplicaID(r + 1), Node: shard.NodeID((i+r)%cfg.Nodes + 1)})
		}
		s.d.NextReplicaID = replicaFactor + 1
		s.leader = s.d.Replicas[0].Node
		s.since = c.begun
		c.shards = append(c.shards, s)
		p.Shards = append(p.Shards, &placementpb.Shard{Descriptor_: s.d.Proto(), Version: 1})
	}
	p.NextNodeId, p.NextShardId = uint64(cfg.Nodes+1), uint64(c.next)
	settings := map[string]string{placement.SettingReplicationFactor: fmt.Sprint(replicaFactor)}
	for name, value := range cfg.Settings {
		settings[name] = value
	}
	for name, value := range settings {
		p.Settings.Settings = append(p.Settings.Settings, &placementpb.Setting{Name: name, Value: value})
	}
	slices.SortFunc(p.Settings.Settings, func(a, b *placementpb.Setting) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	m, err := placement.MapOf(p)
	if err != nil {
		return nil, fmt.Errorf("make the first map: %w", err)
	}
	c.m = m
	return c, nil
}

func (c *Cluster) newNode(version uint64) *placementpb.Node {
	id := len(c.nodes) + 1
	name := fmt.Sprintf("n%d", id)
	p := &placementpb.Node{
		NodeId: uint64(id), Name: name, PeerAddr: name, Incarnation: []byte(name),
		State: placementpb.NodeState_ACTIVE, Version: version,
	}
	if c.cfg.Zones > 0 {
		p.Labels = []*placementpb.Label{{Name: "zone", Value: fmt.Sprintf("z%d", id%c.cfg.Zones)}}
	}
	c.nodes = append(c.nodes, &node{proto: p, up: true, heard: c.now})
	return p
}

func (c *Cluster) newShard(from, to float64) *simulated {
	s := &simulated{d: &shard.Descriptor{ID: c.next, Epoch: 1, Generation: 1}, since: c.now}
	c.next++
	if from > 0 {
		s.d.Span.Start = keyAt(from)
	}
	if to < 1 {
		s.d.Span.End = keyAt(to)
	}
	return s
}

// takeSlot keeps P3 of package placement: the least used slot that no neighbour has.
func (c *Cluster) takeSlot(neighbours ...*simulated) shard.Slot {
	best := -1
	for i := range slotCount {
		taken := slices.ContainsFunc(neighbours, func(s *simulated) bool { return s.d.Slot == shard.Slot(i) })
		if !taken && (best < 0 || c.slots[i] < c.slots[best]) {
			best = i
		}
	}
	c.slots[best]++
	return shard.Slot(best)
}

func bounds(span shard.Span) (from, to float64) {
	to = 1
	if len(span.Start) > 0 {
		from = positionOf(span.Start)
	}
	if len(span.End) > 0 {
		to = positionOf(span.End)
	}
	return from, to
}

// Now returns the number of ticks that have passed.
func (c *Cluster) Now() int { return c.ticks }

// Shards returns how many shards there are.
func (c *Cluster) Shards() int { return len(c.shards) }

// Last returns what was decided in the last tick.
func (c *Cluster) Last() *placement.Decision { return c.last }

// Kill stops a node, with everything on it.
func (c *Cluster) Kill(id shard.NodeID) { c.nodes[id-1].up = false }

// Revive starts it again with what it had.
func (c *Cluster) Revive(id shard.NodeID) {
	n := c.nodes[id-1]
	n.up, n.back, n.heard = true, c.ticks, c.now
}

// Join adds an empty node.
func (c *Cluster) Join() (shard.NodeID, error) {
	p := c.newNode(0)
	return shard.NodeID(p.NodeId), c.change(p)
}

// SetState drains, undrains or decommissions a node.
func (c *Cluster) SetState(id shard.NodeID, state placement.NodeState) error {
	n := c.nodes[id-1]
	n.proto.State = placementpb.NodeState(state)
	return c.change(n.proto)
}

// Held counts the replicas on a node, and the shards it leads.
func (c *Cluster) Held(id shard.NodeID) (replicas, leaders int) {
	for _, s := range c.shards {
		if _, has := s.d.ReplicaOn(id); has {
			replicas++
		}
		if s.leader == id {
			leaders++
		}
	}
	return replicas, leaders
}

// ShiftLoad makes other keys hot.
func (c *Cluster) ShiftLoad() { c.writes = zipf(c.rng, c.cfg.Skew) }

// Heat makes neighbours hot: the keys from a position on, the first of them most.
func (c *Cluster) Heat(position float64) { c.writes = descending(position, c.cfg.Skew) }

// SetWrites changes the rate of all writes together.
func (c *Cluster) SetWrites(rate float64) { c.cfg.Writes = rate }

// change makes the next version of the map (S2), with the nodes given and the shards
// that were touched.
func (c *Cluster) change(nodes ...*placementpb.Node) error {
	if len(nodes) == 0 && len(c.touched) == 0 {
		return nil
	}
	version := c.m.Version() + 1
	p := &placementpb.Map{
		Format: 1, Version: version, ClusterId: 1, NextNodeId: uint64(len(c.nodes) + 1), NextShardId: uint64(c.next),
	}
	for _, n := range nodes {
		n.Version = version
		p.Nodes = append(p.Nodes, n)
	}
	for _, s := range c.shards {
		if c.touched[s] {
			p.Shards = append(p.Shards, &placementpb.Shard{Descriptor_: s.d.Proto(), Version: version})
		}
	}
	clear(c.touched)
	m, err := c.m.Apply(&placementpb.Update{Since: c.m.Version(), Map: p})
	if err != nil {
		return fmt.Errorf("tick %d: %w", c.ticks, err)
	}
	c.m = m
	return nil
}
