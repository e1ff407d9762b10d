package replica

import (
	"slices"
	"sync"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// encodings are buffers in which batches are encoded that are about to be proposed: dragonboat copies what it is
// given, so a buffer for each batch was an eighth of a leader's garbage. All proposers of a node share them: one that is
// idle holds none.
type encodings struct{ pool sync.Pool }

// encode returns a batch's bytes, in a buffer that is released by whoever needs it no more.
func (e *encodings) encode(b *shardpb.Batch) (*[]byte, error) {
	buf, ok := e.pool.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
	}
	size := b.SizeVT()
	*buf = slices.Grow((*buf)[:0], size)[:size]
	_, err := b.MarshalToSizedBufferVT(*buf)
	return buf, err
}

func (e *encodings) release(buf *[]byte) {
	if cap(*buf) <= 2*batchBytesMax {
		e.pool.Put(buf)
	}
}
