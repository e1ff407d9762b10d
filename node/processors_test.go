package node

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Idle is what is idle and what waits for the disk; all others, also who is not of this
// machine, keep it busy.
func TestProcessorTime(t *testing.T) {
	idle, all := processorTime([]byte("cpu  10 20 30 400 50 6 7 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"))
	require.Equal(t, 450.0, idle)
	require.Equal(t, 531.0, all)
	idle, all = processorTime(nil)
	require.Zero(t, idle)
	require.Zero(t, all)
}
