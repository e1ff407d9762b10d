package node_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
)

const (
	hasEnded = "the process of a node has ended"
	stands   = "standing for election: the leader's process has ended"
)

// Where nobody listens any more a process has ended: what it led is led by others, who do not wait for an
// election timeout, the meta group included. When it is back it counts as any other.
func TestShardsOfANodeWhoseProcessHasEnded(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	for _, group := range []shard.ID{c.Node(1).Inside().Map().Lookup([]byte("k")).ID, shard.MetaID} {
		victim := metaLeader(t, c)
		if group != shard.MetaID {
			victim = shardLeader(t, c, group)
		}
		rest, gone := others(c, victim), id(victim)
		client := c.Client(t, rest...)
		put(t, client, "k", "before")
		stood := rest[0].TimesLogged(stands) + rest[1].TimesLogged(stands)
		victim.Stop()
		put(t, client, "k", "after")
		testcluster.Until(t, "one of the others to stand for election", func() bool {
			return rest[0].TimesLogged(stands)+rest[1].TimesLogged(stands) > stood
		})
		testcluster.Until(t, "it to be led", func() bool {
			leader, _ := rest[0].Inside().Host().Leader(group)
			d := rest[0].Inside().Map().Shard(group)
			return leader != 0 && d.NodeOf(leader) != gone
		})
		victim.Start(t)
		for _, n := range rest {
			testcluster.Until(t, "it to count again", func() bool { return len(n.Inside().Ended()) == 0 })
		}
	}
}

// Who is only cut off may lead still: others wait for the timeout.
func TestANodeThatIsCutOffHasNotEnded(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	group := c.Node(1).Inside().Map().Lookup([]byte("k")).ID
	victim := shardLeader(t, c, group)
	rest := others(c, victim)
	c.Network().Isolate(victim.Name, rest[0].Name, rest[1].Name)
	put(t, c.Client(t, rest...), "k", "v")
	for _, n := range c.Nodes() {
		require.False(t, n.Logged(hasEnded), n.Name)
		require.False(t, n.Logged(stands), n.Name)
	}
}
