package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// A node that should lead a shard, and has long been well, is not made to as long as its
// replica of that shard serves nothing.
func TestNobodyMakesAnUnfitReplicaLead(t *testing.T) {
	n := &Node{self: &Membership{NodeID: 1}, cfg: Config{MaxClockOffset: time.Second}}
	n.watch = newWatch(n)
	a := newAgent(n)
	d := &shard.Descriptor{ID: 7, PreferredNode: 2}
	answering := peerHealth{since: time.Now().Add(-2 * steadyAfter)}
	n.watch.mu.peers[2] = answering
	require.True(t, a.shouldLeave(d))
	answering.unfit = []shard.ID{7}
	n.watch.mu.peers[2] = answering
	require.False(t, a.shouldLeave(d))
	require.True(t, a.shouldLeave(&shard.Descriptor{ID: 8, PreferredNode: 2}))
}
