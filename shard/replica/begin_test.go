package replica

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
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

// neighbours are two shards of a process that are being merged.
type neighbours struct {
	*process
	left, right       *Replica
	merged, rightOnly *shard.Descriptor
}

const mergeOperator = 5

// frozenNeighbours are two, of which the right one is frozen.
func frozenNeighbours(t *testing.T) *neighbours {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	t.Cleanup(p.close)
	p.startNewShard(testShard, shard.Span{End: []byte("m")})
	n := &neighbours{process: p, left: p.replica}
	p.startNewShard(testShard+1, shard.Span{Start: []byte("m")})
	n.right = p.replica
	n.rightOnly = n.right.View().Descriptor
	merged := *n.left.View().Descriptor
	merged.Span.End, merged.Epoch, merged.Generation = nil, 2, 2
	n.merged = &merged
	p.put("z", "before")
	require.NoError(t, n.right.Freeze(t.Context(), n.merged, n.rightOnly, mergeOperator))
	return n
}

// ask puts to the right shard and reads it, and returns what comes of that.
func (n *neighbours) ask() (put <-chan shard.Result, read <-chan shard.View) {
	outcome, view := make(chan shard.Result, 1), make(chan shard.View, 1)
	n.right.Propose(putCommand("z", "meanwhile"), func(r shard.Result) { outcome <- r })
	go func() { view <- n.right.Begun(context.Background()) }()
	require.Eventually(n.t, func() bool {
		n.right.views.Lock()
		defer n.right.views.Unlock()
		return len(n.right.views.waiters) == 2
	}, patience, 100*time.Microsecond)
	require.Empty(n.t, outcome)
	return outcome, view
}

// What comes to a shard that is being merged waits, and hears of the merged shard as soon as that has the keys.
func TestRequestsWaitUntilTheShardIsMerged(t *testing.T) {
	n := frozenNeighbours(t)
	put, read := n.ask()
	require.NoError(t, n.right.SecureFrozen(t.Context(), mergeOperator))
	require.NoError(t, n.left.Subsume(t.Context(), n.merged, n.rightOnly, mergeOperator))
	var elsewhere *shard.WrongShardError
	require.ErrorAs(t, (<-put).Err, &elsewhere)
	require.Equal(t, []*shard.Descriptor{n.left.View().Descriptor}, elsewhere.Descriptors)
	require.ErrorAs(t, n.right.Refusal(<-read), &elsewhere)
	require.Equal(t, []*shard.Descriptor{n.left.View().Descriptor}, elsewhere.Descriptors)
	require.ErrorAs(t, n.propose(putCommand("z", "later")).Err, &elsewhere, "who comes later, too")
	require.Zero(t, n.right.beginners.Load())
}

// A merge that is given up lets what waited go on, and no merged shard was ever spoken of.
func TestRequestsWaitUntilTheMergeIsGivenUp(t *testing.T) {
	n := frozenNeighbours(t)
	put, read := n.ask()
	var nowhere *shard.NoReplicaError
	require.ErrorAs(t, n.right.Refusal(n.right.View()), &nowhere)
	require.NoError(t, n.propose(&shardpb.Command{Kind: shardpb.Kind_THAW, OperatorId: mergeOperator}).Err)
	require.NoError(t, (<-put).Err)
	require.NotNil(t, (<-read).Descriptor)
	require.Equal(t, "meanwhile", n.get("z"))
	require.Zero(t, n.right.beginners.Load())
}
