package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// A new replica waits for what is left of others where its data is to come, and for what
// is left of its own shard even without data: its log may still be there.
func TestLeftoversBlock(t *testing.T) {
	span := func(start, end string) shard.Span { return shard.Span{Start: []byte(start), End: []byte(end)} }
	d := &shard.Descriptor{ID: 5, Span: span("f", "m")}
	for _, c := range []struct {
		left leftover
		want bool
	}{
		{leftover{replica.Held{Shard: 5, Replica: 1}, shard.Span{}, false}, true},
		{leftover{replica.Held{Shard: 5, Replica: 1}, span("a", "b"), true}, true},
		{leftover{replica.Held{Shard: 4, Replica: 1}, shard.Span{}, false}, false},
		{leftover{replica.Held{Shard: 4, Replica: 1}, span("a", "f"), true}, false},
		{leftover{replica.Held{Shard: 4, Replica: 1}, span("m", ""), true}, false},
		{leftover{replica.Held{Shard: 4, Replica: 1}, span("a", "g"), true}, true},
		{leftover{replica.Held{Shard: 4, Replica: 1}, span("", ""), true}, true},
	} {
		require.Equal(t, c.want, c.left.blocks(d), "%+v", c.left)
	}
}

// What a merged shard has left stays until the left one has taken it, and no longer.
func TestWhatTheLeftOneLacks(t *testing.T) {
	left := &shard.Frozen{Into: &shard.Descriptor{ID: 5, Epoch: 8}}
	at := func(epoch uint64) *shard.Descriptor { return &shard.Descriptor{ID: 5, Epoch: epoch} }
	for name, c := range map[string]struct {
		view shard.View
		want bool
	}{
		"it has nothing yet":               {shard.View{}, true},
		"it has not come to the merge":     {shard.View{Descriptor: at(7)}, true},
		"it has the keys":                  {shard.View{Descriptor: at(8)}, false},
		"it was split since":               {shard.View{Descriptor: at(9)}, false},
		"it is merged away before":         {shard.View{Frozen: &shard.Frozen{Descriptor: at(7)}}, true},
		"it has them and is merged away":   {shard.View{Frozen: &shard.Frozen{Descriptor: at(8)}}, false},
		"it will never take anything more": {shard.View{Poisoned: true}, false},
	} {
		require.Equal(t, c.want, lacks(c.view, left), name)
	}
}
