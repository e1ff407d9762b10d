package node_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/robustness"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// A lease may live longer than it was promised if its shard loses its leader, which on a busy machine may happen
// without a fault. So whoever judges that is told of each such election, also of the last one.
func TestALostLeaderIsObserved(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	lonely := leaderOf(t, c, c.Node(1), "k")
	rest := others(c, lonely)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	observed := make(chan robustness.Observed, 1)
	go func() { observed <- newReshaped(c, nil, false).Observe(ctx) }()

	c.Network().Isolate(lonely.Name, rest[0].Name, rest[1].Name)
	testcluster.Until(t, "another leader", func() bool {
		next := leaderOf(t, c, rest[0], "k")
		return next != lonely && leaderOf(t, c, next, "k") == next // it has heard of it, too
	})
	cancel()
	require.NotEmpty(t, (<-observed).Elected)
}
