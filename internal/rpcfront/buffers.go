package rpcfront

import "sync"

// bufferBytesMax is the largest buffer that is kept for reuse: it has room for a native client's
// frame.
const bufferBytesMax = 1 << 20

// buffers are unused buffers.
type buffers struct{ pool sync.Pool }

func (b *buffers) get() *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return p
	}
	return new([]byte)
}

func (b *buffers) put(p *[]byte) {
	if cap(*p) <= bufferBytesMax {
		*p = (*p)[:0]
		b.pool.Put(p)
	}
}
