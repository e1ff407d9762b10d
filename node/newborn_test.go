package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// A child's replica starts when the parent's on its node has left the seed, or never will.
func TestWhenTheParentGaveKeysAway(t *testing.T) {
	whole := &shard.Descriptor{Span: shard.Span{}}
	rest := &shard.Descriptor{Span: shard.Span{End: []byte("m")}}
	child := shard.Span{Start: []byte("m")}
	for name, c := range map[string]struct {
		parent shard.View
		want   bool
	}{
		"it has nothing itself yet":        {shard.View{}, false},
		"it has not come to the split":     {shard.View{Descriptor: whole}, false},
		"it has split":                     {shard.View{Descriptor: rest}, true},
		"it is merged away before":         {shard.View{Frozen: &shard.Frozen{Descriptor: whole}}, false},
		"it has split and is merged away":  {shard.View{Frozen: &shard.Frozen{Descriptor: rest}}, true},
		"it missed a split of before that": {shard.View{Poisoned: true}, true},
	} {
		require.Equal(t, c.want, gaveAway(c.parent, child), name)
	}
}
