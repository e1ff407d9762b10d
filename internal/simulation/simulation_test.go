package simulation

import (
	"flag"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
)

var (
	seedFlag   = flag.Uint64("seed", 1, "of load, noise and faults")
	ticksFlag  = flag.Int("ticks", 600, "of the run with everything in it; a tick is 10 seconds of the cluster's time")
	shardsFlag = flag.Int("shards", 900, "of the larger clusters at their beginning")
)

func start(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	cfg.Seed = *seedFlag
	c, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		t.Logf("%s", c.Stats())
		if t.Failed() {
			t.Logf("the same again: go test ./internal/simulation -run '%s' -seed=%d -ticks=%d -shards=%d", t.Name(), *seedFlag, *ticksFlag, *shardsFlag)
		}
	})
	return c
}

// quiet waits until the cluster has come to rest, and wants that nothing swung.
func quiet(t *testing.T, c *Cluster, ticksMax int) int {
	t.Helper()
	ticks, err := c.RunUntilQuiet(ticksMax)
	require.NoError(t, err)
	calm(t, c.Stats())
	return ticks
}

// calm wants that no copy was undone, and hardly a leader came back. A few may: what a
// leader leaves can be filled by another before the rest has found its place.
func calm(t *testing.T, st Stats) {
	t.Helper()
	require.Empty(t, st.Oscillations)
	require.LessOrEqual(t, float64(st.LeaderSwings), 0.1*float64(st.ByKind[placement.TransferLeader]))
}

// Thirty nodes at rest stay at rest, though what they report is a little different
// every time.
func TestNoiseMovesNothing(t *testing.T) {
	c := start(t, Config{Nodes: 30, Zones: 3, Shards: *shardsFlag, Bytes: 200 << 30, Writes: 20_000, Noise: 0.2})
	require.NoError(t, c.Run(60))
	require.Empty(t, c.Stats().ByKind)
}

// Nodes that join get their share, each replica being copied once.
func TestJoin(t *testing.T) {
	c := start(t, Config{Nodes: 27, Zones: 3, Shards: *shardsFlag, Bytes: 200 << 30, Writes: 20_000})
	quiet(t, c, 10)
	c.ResetStats()
	var joined []shard.NodeID
	for range 3 {
		id, err := c.Join()
		require.NoError(t, err)
		joined = append(joined, id)
	}
	ticks := quiet(t, c, 1000)
	t.Logf("at rest after %d ticks", ticks)

	st := c.Stats()
	share := float64(*shardsFlag) * replicaFactor / 30
	for _, id := range joined {
		replicas, leaders := c.Held(id)
		require.Greater(t, float64(replicas), 0.8*share)
		require.Greater(t, float64(leaders), 0.7*share/replicaFactor)
	}
	require.Less(t, float64(st.ByKind[placement.MoveReplica]), 1.05*3*share, "no more copies than the new nodes hold")
	require.LessOrEqual(t, st.MovesMost, 6, "a copy and a leader for each of the three, at most")
	require.Less(t, st.Last().Leaders, 1.2)
	require.Less(t, st.Last().Bytes, 1.2)
}

// A node restarts now and then. Nothing is copied for it, and it leads again afterwards.
func TestRestartsCopyNothing(t *testing.T) {
	c := start(t, Config{Nodes: 9, Zones: 3, Shards: 180, Bytes: 40 << 30, Writes: 9000})
	for range 3 {
		c.Kill(4)
		require.NoError(t, c.Run(30)) // 5 minutes
		c.Revive(4)
		require.NoError(t, c.Run(60))
	}
	require.Zero(t, c.Stats().ByKind[placement.MoveReplica])
	require.Zero(t, c.Stats().ByKind[placement.AddReplica])
	require.Less(t, c.Stats().Last().Leaders, 1.25)
}

// A node dies for good, with 1,000 replicas of 10,000 shards. Each is replaced once;
// when it comes back, empty of use, it is filled like a new one.
func TestLargeClusterLosesANode(t *testing.T) {
	c := start(t, Config{Nodes: 30, Zones: 3, Shards: 10_000, Bytes: 1 << 40, Writes: 20_000,
		Settings: map[string]string{"moves-max": "120", "moves-per-node": "8", "dead-after": "1m"}})
	require.NoError(t, c.Run(2))
	lost, _ := c.Held(5)
	require.InDelta(t, 1000, lost, 5)
	c.Kill(5)
	require.NoError(t, c.Run(5))
	require.Zero(t, c.Stats().ByRule[placement.RuleRepair], "it may come back within a minute")
	quiet(t, c, 120)
	replicas, _ := c.Held(5)
	require.Zero(t, replicas)
	require.Equal(t, lost, c.Stats().ByRule[placement.RuleRepair])
	require.Less(t, c.Stats().Last().Bytes, 1.2)
}

// A node is drained for maintenance, then decommissioned: no leader is left, then no
// replica.
func TestDrainAndDecommission(t *testing.T) {
	c := start(t, Config{Nodes: 9, Zones: 3, Shards: 180, Bytes: 40 << 30, Writes: 9000})
	require.NoError(t, c.SetState(2, placement.Draining))
	quiet(t, c, 100)
	replicas, leaders := c.Held(2)
	require.Equal(t, 60, replicas)
	require.Zero(t, leaders)
	require.Zero(t, c.Stats().BytesCopied)

	require.NoError(t, c.SetState(2, placement.Active))
	quiet(t, c, 100)
	_, leaders = c.Held(2)
	require.NotZero(t, leaders)

	require.NoError(t, c.SetState(2, placement.Decommissioning))
	quiet(t, c, 400)
	replicas, _ = c.Held(2)
	require.Zero(t, replicas)
	require.Equal(t, 60, c.Stats().ByRule[placement.RuleRepair])
}

// An empty cluster has one shard. As load comes it splits until no shard is too busy,
// and its parts spread. When the load is gone they are merged again, once.
func TestOneShardGrowsAndShrinks(t *testing.T) {
	c := start(t, Config{Nodes: 6, Shards: 1, Bytes: 1 << 30, Writes: 60_000, Skew: 0.5, Noise: 0.05})
	quiet(t, c, 600)
	grown := c.Shards()
	require.GreaterOrEqual(t, grown, 12)
	require.LessOrEqual(t, grown, 40, "no more than about two for each that the load needs")
	require.Less(t, c.Stats().Last().Leaders, 1.3)
	require.Equal(t, grown-1, c.Stats().ByKind[placement.Split])

	c.SetWrites(100)
	c.ResetStats()
	require.NoError(t, c.Run(4*peakTicks))
	_, err := c.RunUntilQuiet(4 * peakTicks)
	require.NoError(t, err)
	require.Less(t, c.Shards(), grown)
	require.GreaterOrEqual(t, c.Shards(), 6, "every node has one to lead")
	require.Zero(t, c.Stats().ByKind[placement.Split], "nothing is split that was merged")
}

// What is hot changes every half hour. Each time the cluster finds its balance again,
// by leaders more than by copies.
func TestHotRangesShift(t *testing.T) {
	c := start(t, Config{Nodes: 30, Zones: 3, Shards: *shardsFlag / 3, Bytes: 60 << 30, Writes: 60_000, Skew: 0.9, Noise: 0.05,
		Settings: map[string]string{"split-writes": "1000", "merge-below": "0"}})
	for range 4 {
		c.ShiftLoad()
		c.ResetStats()
		require.NoError(t, c.Run(oscillationTicks))
		st := c.Stats()
		calm(t, st)
		require.Less(t, st.Last().Leaders, 1.5, "with ten shards a node leads, it is about those of its neighbours")
		require.Less(t, st.Last().Work, 1.35)
		require.LessOrEqual(t, st.MovesMost, 6)
		early := slices.MaxFunc(st.Over, func(a, b Ratios) int { return int(math.Copysign(1, a.Leaders-b.Leaders)) })
		require.Less(t, st.Last().Leaders, early.Leaders)
	}
}

// The same configuration and the same calls give the same run (S1).
func TestSameSeedSameRun(t *testing.T) {
	run := func() (Stats, *placement.Decision) {
		c := start(t, Config{Nodes: 6, Zones: 3, Shards: 60, Bytes: 20 << 30, Writes: 9000, Skew: 0.9, Noise: 0.1})
		require.NoError(t, c.Run(10))
		c.Kill(3)
		require.NoError(t, c.Run(90))
		return c.Stats(), c.Last()
	}
	stats, last := run()
	statsAgain, lastAgain := run()
	require.Equal(t, stats, statsAgain)
	require.Equal(t, last, lastAgain)
}

// Everything at once, for as long as -ticks says: hot ranges shift, nodes die, come
// back, join and leave. Afterwards there is peace, with every replica in its place.
func TestEverything(t *testing.T) {
	c := start(t, Config{Nodes: 12, Zones: 3, Shards: *shardsFlag / 6, Bytes: 40 << 30, Writes: 24_000, Skew: 0.7, Noise: 0.1})
	down := shard.NodeID(0)
	for c.Now() < *ticksFlag {
		switch c.rng.IntN(5) {
		case 0:
			c.ShiftLoad()
		case 1:
			if down == 0 {
				down = shard.NodeID(c.rng.IntN(len(c.nodes)) + 1)
				c.Kill(down)
			} else {
				c.Revive(down)
				down = 0
			}
		case 2:
			if len(c.nodes) < 16 {
				_, err := c.Join()
				require.NoError(t, err)
			}
		case 3:
			require.NoError(t, c.SetState(shard.NodeID(c.rng.IntN(4)+1), placement.Draining))
		case 4:
			for id := range shard.NodeID(4) {
				require.NoError(t, c.SetState(id+1, placement.Active))
			}
		}
		require.NoError(t, c.Run(20))
	}
	if down != 0 {
		c.Revive(down)
	}
	for id := range shard.NodeID(4) {
		require.NoError(t, c.SetState(id+1, placement.Active))
	}
	c.cfg.Noise = 0
	c.ResetStats()
	quiet(t, c, 1500)
	for _, d := range c.m.Shards() {
		require.Len(t, d.Replicas, replicaFactor)
		zones := map[string]bool{}
		for _, r := range d.Replicas {
			require.False(t, r.Learner)
			zones[c.m.Node(r.Node).Labels["zone"]] = true
		}
		require.Len(t, zones, replicaFactor)
	}
}

// The keys that get most of the writes are neighbours, and after a minute others: one shard
// has nearly all the load, is split several times, and its parts go to nodes that it was not
// on. In less than that minute all of it is led evenly again, though what leaders report are
// averages that lag behind. How evenly is a matter of luck: the planner takes one step at a time, none of
// which may turn two nodes around (L4 of package placement). If no replica of what the busiest node leads is on
// the idlest, and those on the others are too large to be led there, it comes to rest with that node up to 45 %
// above the mean: one seed in twenty does so above 30 %.
func TestAHotRangeWanders(t *testing.T) {
	c := start(t, Config{Nodes: 5, Shards: 5, Bytes: 5 << 20, Writes: 3000, Skew: 0.99, Noise: 0.05, Averaged: true, Tick: time.Second,
		Settings: map[string]string{"split-writes": "500", "settle": "3s"}})
	const even = 1.45
	for place := range 4 {
		c.Heat(math.Mod(0.1+0.38*float64(place), 1))
		c.ResetStats()
		require.NoError(t, c.Run(60))
		over := c.Stats().Over
		require.Greater(t, over[0].Leaders, 2.5)
		first := slices.IndexFunc(over, func(r Ratios) bool { return r.Leaders <= even })
		require.GreaterOrEqual(t, first, 0)
		require.LessOrEqual(t, first, 45)
		require.LessOrEqual(t, c.Stats().Last().Leaders, even)
	}
}
