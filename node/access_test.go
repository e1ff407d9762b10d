package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement"
)

// An attempt to enable authentication that neither succeeds nor is undone is undone after a while, each from its own begin.
func TestArmingEnds(t *testing.T) {
	t.Parallel()
	var seen arming
	first, second := &placement.Auth{Armed: true, ArmedAt: 5}, &placement.Auth{Armed: true, ArmedAt: 8}
	require.Zero(t, seen.overdue(first, time.Minute))
	require.Zero(t, seen.overdue(first, time.Minute+armingMax-1))
	require.Zero(t, seen.overdue(second, time.Minute+armingMax))
	require.Zero(t, seen.overdue(&placement.Auth{}, time.Minute+2*armingMax-1))
	require.Zero(t, seen.overdue(second, time.Minute+2*armingMax))
	require.Equal(t, uint64(8), seen.overdue(second, time.Minute+3*armingMax))
	require.Zero(t, seen.overdue(&placement.Auth{Armed: true, ArmedAt: 8, Enabled: true}, time.Minute+4*armingMax))
}
