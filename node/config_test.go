package node

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Founders get their IDs in the order of their ports, however many digits those have,
// and whatever order each of them was given the list in.
func TestFoundersAreOrderedByPort(t *testing.T) {
	want := []string{"noport", "10.0.0.1:9", "127.0.0.1:4380", "127.0.0.1:24380", "127.0.0.1:30380", "[::1]:80", "b:1"}
	join := slices.Clone(want)
	for range 2 {
		slices.Reverse(join)
		c := Config{PeerAddr: "127.0.0.1:24380", Join: join}.withDefaults()
		require.Equal(t, want, c.Join)
	}
	require.Equal(t, "127.0.0.1:4380", Config{PeerAddr: "127.0.0.1:4380"}.withDefaults().Join[0])
}
