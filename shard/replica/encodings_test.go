package replica

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// What is encoded is the batch and nothing else, whatever the buffer had before.
func TestEncodings(t *testing.T) {
	var e encodings
	for _, size := range []int{100, 1 << 20, 3 << 20, 0, 10} {
		b := &shardpb.Batch{Format: 1, Sequence: uint64(size), Commands: []*shardpb.Command{{Body: bytes.Repeat([]byte{7}, size)}}}
		want, err := b.MarshalVT()
		require.NoError(t, err)
		got, err := e.encode(b)
		require.NoError(t, err)
		require.Equal(t, want, *got)
		e.release(got)
	}
}
