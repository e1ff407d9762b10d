package placement

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// A merge that is planned is told as a reason, because nobody carries it out.
func TestMergesAreReasons(t *testing.T) {
	split := Step{Kind: Split, Shard: 2, Rule: RuleSplit}
	d := &Decision{
		Steps:   []Step{split, {Kind: Merge, Shard: 3, With: 4, Rule: RuleMerge}},
		Reasons: []Reason{{Rule: RuleData, Text: "even"}},
	}
	feasible := d.Feasible()
	require.Equal(t, []Step{split}, feasible.Steps)
	require.Equal(t, []Reason{{Rule: RuleData, Text: "even"}, {RuleMerge, []shard.ID{3, 4}, "small, but merges cannot be carried out yet"}}, feasible.Reasons)
	require.Len(t, d.Reasons, 1)
}
