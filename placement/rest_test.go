package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// A keyspace in which hardly anything happens comes to rest, with a shard for each node to lead, wherever its replicas
// were: what gathers neighbours and what evens out nodes do not undo each other's moves (L7). Moves take
// seconds, and a leader that has begun to lead knows nothing for a while. A failure names the seed's subtest:
// go test ./placement -run 'TestSmallShardsComeToRest/seed=7$'
func TestSmallShardsComeToRest(t *testing.T) {
	for seed := range uint64(100) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			newRestingCluster(t, seed).rest()
		})
	}
}

// restingCluster carries out the plans of a story, a round each second.
type restingCluster struct {
	*planStory
	t     *testing.T
	rng   *rand.Rand
	under []underWay
	moves int
	// silent is for how many rounds nothing is heard of a shard whose leader has changed.
	silent map[shard.ID]int
}

type underWay struct {
	Step
	until time.Time
}

func newRestingCluster(t *testing.T, seed uint64) *restingCluster {
	c := &restingCluster{planStory: newPlanStory(), t: t, rng: rand.New(rand.NewPCG(seed, 0)), silent: make(map[shard.ID]int)}
	nodes := 3 + c.rng.IntN(3)
	for i := range nodes {
		c.line(t, fmt.Sprintf("node n%d", i+1))
	}
	c.line(t, "shard 2 on=n1,n2,n3")
	for i := range nodes + c.rng.IntN(8) {
		on := c.rng.Perm(nodes)
		c.line(t, fmt.Sprintf("shard %d from=%c on=n%d,n%d,n%d bytes=%dKiB writes=%d", 3+i, 'b'+i, on[0]+1, on[1]+1, on[2]+1,
			c.rng.IntN(20), c.rng.IntN(2)))
	}
	c.settings["merge-wait"] = "5s"
	c.settings["settle"] = "1s"
	return c
}

// rest runs the cluster until nothing was begun for a minute.
func (c *restingCluster) rest() {
	const quiet = 60
	still := 0
	round := 0
	for ; still < quiet; round++ {
		require.Less(c.t, round, 1200, "still at it after %d moves", c.moves)
		still++
		if c.round() {
			still = 0
		}
	}
	if len(c.shards) > len(c.nodes) {
		c.t.Fatalf("%d shards stay on %d nodes:\n%s", len(c.shards), len(c.nodes), c.plan(c.t))
	}
	c.t.Logf("at rest after %d s and %d moves", round-quiet, c.moves)
}

// round ends what is due, and begins what the next plan says, which it reports.
func (c *restingCluster) round() (begun bool) {
	c.now = c.now.Add(time.Second)
	before := make(map[shard.ID]ShardLoad)
	for id, l := range c.load.Shards {
		before[id] = l
	}
	c.under = slices.DeleteFunc(c.under, func(s underWay) bool {
		due := !c.now.Before(s.until)
		if due {
			c.carryOut(c.t, s.Step)
		}
		return due
	})
	for id, n := range c.load.Nodes {
		n.Heard = c.now
		c.load.Nodes[id] = n
	}
	for id, l := range c.load.Shards {
		l.Heard = c.now
		switch {
		case l.Leader != before[id].Leader:
			l.SpanSince = time.Time{}
			c.silent[id] = c.rng.IntN(3)
		case l.SpanSince.IsZero():
			l.SpanSince = c.now
		}
		if c.silent[id] > 0 {
			c.silent[id]--
			l.Heard = time.Time{}
		}
		c.load.Shards[id] = l
	}
	c.load.InFlight = nil
	for _, s := range c.under {
		c.load.InFlight = append(c.load.InFlight, s.Step)
	}
	c.plan(c.t)
	for _, s := range c.last.Steps {
		takes := time.Second
		if s.Kind == MoveReplica {
			c.moves++
			takes += time.Duration(c.rng.IntN(4)) * time.Second
		}
		c.under = append(c.under, underWay{s, c.now.Add(takes)})
	}
	return len(c.last.Steps) > 0
}
