package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// Puts are refused as long as an alarm says why, not shorter and not longer, whatever this node has heard meanwhile.
func TestNoSpaceIsRefusedWhileItIsTold(t *testing.T) {
	n := &Node{self: &Membership{NodeID: 1}}
	n.space, n.health = &space{node: n}, newHealth(n)
	told := func(want ...shard.NodeID) {
		t.Helper()
		require.Equal(t, want, append([]shard.NodeID(nil), n.space.fullNodes()...))
		if len(want) == 0 {
			require.NoError(t, n.space.refusal())
		} else {
			require.ErrorIs(t, n.space.refusal(), shard.ErrNoSpace)
		}
	}
	hears := func(from shard.NodeID, low bool) {
		n.health.mu.peers[from] = peerHealth{since: time.Now(), diskLow: low}
	}
	told()
	hears(3, true)
	told()
	n.space.judge()
	told(3)
	n.space.mu.low = true
	told(3)
	n.space.judge()
	told(1, 3)
	hears(3, false)
	told(1, 3)
	n.space.judge()
	told(1)
	n.space.mu.low = false
	told(1)
	n.space.judge()
	told()
}
