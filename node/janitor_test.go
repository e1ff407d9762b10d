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
