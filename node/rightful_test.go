package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// A node that should lead a shard, and has long been well, is not made to as long as its
// replica of that shard serves nothing or has no vote.
func TestNobodyMakesAnUnfitReplicaLead(t *testing.T) {
	n := &Node{self: &Membership{NodeID: 1}, cfg: Config{MaxClockOffset: time.Second}}
	n.health = newHealth(n)
	d := &shard.Descriptor{ID: 7, PreferredNode: 2, Replicas: []shard.Replica{{ID: 4, Node: 1}, {ID: 5, Node: 2}}}
	answering := peerHealth{since: time.Now().Add(-2 * steadyAfter)}
	n.health.mu.peers[2] = answering
	require.Equal(t, d.Replicas[1], n.rightful(d))
	own := *d
	own.PreferredNode = 1
	require.Zero(t, n.rightful(&own))
	learning := *d
	learning.Replicas = []shard.Replica{d.Replicas[0], {ID: 5, Node: 2, Learner: true}}
	require.Zero(t, n.rightful(&learning))
	answering.unfit = []shard.ID{7}
	n.health.mu.peers[2] = answering
	require.Zero(t, n.rightful(d))
	other := *d
	other.ID = 8
	require.Equal(t, d.Replicas[1], n.rightful(&other))
	n.health.mu.peers[2] = peerHealth{since: time.Now()}
	require.Zero(t, n.rightful(&other), "it has only just come back")
}
