package hlc

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

type manualClock struct{ now time.Time }

func (c *manualClock) Now() time.Time { return c.now }

// C1: a clock that jumps back an hour does not take the stamps with it, not even when
// the next write goes to a shard with a lower slot.
func TestStampIsAboveWhatWasSeen(t *testing.T) {
	c := &manualClock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	h := NewHybrid(c)
	before, err := h.Stamp()
	require.NoError(t, err)
	require.Equal(t, shard.TickAt(c.now), before)

	seen := shard.NextRevision(0, before, 7)
	h.Observe(seen)
	c.now = c.now.Add(-time.Hour)
	after, err := h.Stamp()
	require.NoError(t, err)
	require.Greater(t, shard.NextRevision(0, after, 0), seen)

	h.Observe(1) // an older revision changes nothing
	require.Equal(t, before, h.Seen().Tick())
}

// C2: no stamp while distrusted, and the reason reaches the caller.
func TestDistrustedClockStampsNothing(t *testing.T) {
	h := NewHybrid(&manualClock{now: time.Now()})
	h.Distrust("node n2 is 1h0m0s ahead")
	_, err := h.Stamp()
	require.ErrorIs(t, err, shard.ErrClockUntrusted)
	require.ErrorContains(t, err, "1h0m0s ahead")
	h.Trust()
	_, err = h.Stamp()
	require.NoError(t, err)
}
