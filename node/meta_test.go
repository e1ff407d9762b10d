package node

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Only builds that a version identifies are known to do the same with the same command.
func TestIdentifies(t *testing.T) {
	for version, want := range map[string]bool{
		"v1.2.3": true, "v0.0.0-20261127101112-0123456789ab": true,
		"": false, "unknown": false, "(devel)": false, "v1.2.3+dirty": false,
	} {
		require.Equal(t, want, identifies(version), version)
	}
}
