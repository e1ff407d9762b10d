package ports_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/ports"
)

// L1: the holder's server may come and go; nobody else is given the port meanwhile.
func TestLeaseKeepsThePortWhileNothingListens(t *testing.T) {
	held, err := ports.Lease()
	require.NoError(t, err)
	for range 3 {
		l, err := net.Listen("tcp", held.Addr())
		require.NoError(t, err)
		require.NoError(t, l.Close())
		other, err := ports.Lease()
		require.NoError(t, err)
		require.NotEqual(t, held.Number(), other.Number())
		require.NoError(t, other.Release())
	}
	require.NoError(t, held.Release())
}
