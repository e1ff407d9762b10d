package placement

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
)

// A shard keeps its slot, so a merge must not bring two of one slot together. There are
// such only where there were more than 256 shards.
func TestMergeKeepsSlotsApart(t *testing.T) {
	merge := func(m *Map, left int) *placementpb.Result {
		d, with := m.Shards()[left], m.Shards()[left+1]
		return (&State{m: m}).Apply(&placementpb.Command{Body: &placementpb.Command_BeginOperator{BeginOperator: &placementpb.BeginOperator{
			ExpectedGeneration: d.Generation, ExpectedWithGeneration: with.Generation,
			Operator: &placementpb.Operator{ShardId: uint64(d.ID), WithShardId: uint64(with.ID), Kind: placementpb.OperatorKind_MERGE},
		}}})
	}
	p := wideMap(t, 300).Proto()
	p.Shards[12].Descriptor_.Slot = p.Shards[10].Descriptor_.Slot
	m, err := MapOf(p)
	require.NoError(t, err)
	r := merge(m, 10)
	require.Equal(t, placementpb.Code_FAILED_PRECONDITION, r.Code)
	require.Contains(t, r.Message, "are neighbours and both have slot 10")
	require.Equal(t, placementpb.Code_OK, merge(m, 11).Code)

	// 257 shards share one slot; with 256 each must have its own.
	m = wideMap(t, 257)
	r = merge(m, 10)
	require.Equal(t, placementpb.Code_FAILED_PRECONDITION, r.Code)
	require.Contains(t, r.Message, "which another has, though there are only 256 shards")
	require.Equal(t, placementpb.Code_OK, merge(m, 255).Code, "one of the two goes")
}

// What is checked on a map changes nothing, and is refused as it would be.
func TestCheckedCommands(t *testing.T) {
	s := &State{m: wideMap(t, 3)}
	m := s.Map()
	d := m.Shards()[0]
	require.NoError(t, m.Check(BeginSplit(d, []byte("5"), "a test")))
	require.ErrorContains(t, m.Check(BeginSplit(d, d.Span.End, "a test")), "is not inside its span")
	require.Same(t, m, s.Map())
	require.NoError(t, ResultError(s.Apply(BeginSplit(d, []byte("5"), "a test"))))
	require.ErrorContains(t, s.Map().Check(BeginMove(d, 1, 0, "a test")), "is held by operator")
}
