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

// compact discards the first at bytes of a buffer, which were read, if n more do not fit behind the others. Otherwise the
// buffer of a reader who never catches up would grow for ever. What was read must be half of it at least, so that
// few bytes are moved for each that was read.
func compact(buf []byte, at, n int) ([]byte, int) {
	if cap(buf)-len(buf) >= n || at < len(buf)-at {
		return buf, at
	}
	return buf[:copy(buf, buf[at:])], 0
}
