package peer

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"
)

// smallBytesMax is the size up to which gRPC's own buffers suffice. Its next larger ones have 1
// MiB, and it clears the whole of a buffer each time: for frames of a hundred kilobytes that was a
// thirtieth of all CPU.
const smallBytesMax = 16 << 10

// largeBuffers are unused buffers of more than smallBytesMax, by size: buffers of one class have
// room for 2^class bytes and are not cleared. It is a mem.BufferPool.
type largeBuffers struct{ classes [bits.UintSize]sync.Pool }

var _ mem.BufferPool = (*largeBuffers)(nil)

// Get implements mem.BufferPool.
func (l *largeBuffers) Get(size int) *[]byte {
	class := bits.Len(uint(size - 1))
	if buf, ok := l.classes[class].Get().(*[]byte); ok {
		*buf = (*buf)[:size]
		return buf
	}
	buf := make([]byte, size, 1<<class)
	return &buf
}

// Put implements mem.BufferPool.
func (l *largeBuffers) Put(buf *[]byte) { l.classes[bits.Len(uint(cap(*buf)-1))].Put(buf) }
