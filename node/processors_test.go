package node

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Idle is what is idle and what waits for the disk; all others, also who is not of this
// machine, keep it busy.
func TestProcessorTime(t *testing.T) {
	stat := []byte("cpu  10 20 30 400 50 6 7 8 0 0\ncpu0 1 2 3 40 5 0 0 0 0 0\ncpu1 9 18 27 360 45 6 7 8 0 0\nintr 5 5\n")
	for of, want := range map[string][2]float64{
		"":    {450, 531}, // it is not said
		"0-1": {450, 531},
		"0":   {45, 51},
		"1,7": {405, 480},
	} {
		idle, all := processorTime(stat, allowedProcessors([]byte("Name:\tx\nCpus_allowed_list:\t"+of+"\nMems_allowed:\t1\n")))
		require.Equal(t, want, [2]float64{idle, all}, of)
	}
	idle, all := processorTime(nil, nil)
	require.Zero(t, idle)
	require.Zero(t, all)
}

func TestAllowedProcessors(t *testing.T) {
	require.Equal(t, map[string]bool{"cpu0": true, "cpu1": true, "cpu2": true, "cpu5": true}, allowedProcessors([]byte("\nCpus_allowed_list:\t0-2,5\n")))
	require.Empty(t, allowedProcessors([]byte("\nCpus_allowed:\tff\n")))
	require.Empty(t, allowedProcessors(nil))
}
