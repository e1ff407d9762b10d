package replica

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// What comes to a shard that was split off and has not begun yet waits until it has, instead
// of being refused and coming again.
func TestRequestsWaitUntilTheShardBegins(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.start()
	outcome := make(chan shard.Result, 1)
	p.replica.Propose(putCommand("a", "1"), func(r shard.Result) { outcome <- r })
	view := make(chan shard.View, 1)
	go func() { view <- p.replica.Begun(t.Context()) }()
	require.NoError(t, p.propose(initCommand(testShard, shard.Span{})).Err)
	require.NoError(t, (<-outcome).Err)
	require.NotNil(t, (<-view).Descriptor)
	require.Equal(t, "1", p.get("a"))
	require.Zero(t, p.replica.beginners.Load())
}

// One that does not begin refuses, and so many at a time do not wait for it at all.
func TestAShardThatDoesNotBegin(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.start()
	require.ErrorIs(t, p.propose(putCommand("a", "1")).Err, shard.ErrUnavailable)
	p.replica.beginners.Store(beginnersMax)
	refused := false
	p.replica.Propose(putCommand("a", "1"), func(r shard.Result) { refused = r.Err != nil })
	require.True(t, refused, "at once")
	require.Equal(t, int64(beginnersMax), p.replica.beginners.Load())
}
