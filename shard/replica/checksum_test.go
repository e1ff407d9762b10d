package replica

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A sum takes a tenth of a CPU, and a fortieth while others wait for one, however long it has to wait itself.
func TestSumsRest(t *testing.T) {
	const took = time.Millisecond
	require.Equal(t, 10*took, took+sumRest(took, false))
	require.Equal(t, 40*took, took+sumRest(took, true))
	require.Equal(t, sumRestMin, sumRest(time.Microsecond, true))
	require.Equal(t, sumRestMax, sumRest(time.Second, false))
	require.Equal(t, sumRestMax, sumRest(time.Second, true))
}
