package replica

import (
	"slices"
	"sync"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// encodings are buffers for encoding batches that are about to be proposed. dragonboat copies what it is given, so
// allocating a buffer for each batch made up an eighth of a leader's garbage. All proposers of a node share them, so
// an idle proposer holds none.
type encodings struct{ pool sync.Pool }

// encode returns a batch's bytes in a buffer. The caller releases it when it needs it no more.
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
