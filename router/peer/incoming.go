package peer

import (
	"google.golang.org/grpc/mem"
)

// incoming is a received frame, still encoded.
type incoming struct {
	// keep makes the frame own its memory, so that decoded requests may keep referring to it.
	// Otherwise data is gRPC's until free.
	keep bool
	data []byte
	buf  mem.Buffer
}

// take takes the bytes of a frame from gRPC.
func (f *incoming) take(data mem.BufferSlice) {
	if f.keep {
		f.data = data.Materialize()
		return
	}
	f.buf = data.MaterializeToBuffer(mem.DefaultBufferPool())
	f.data = f.buf.ReadOnlyData()
}

// free releases the frame.
func (f *incoming) free() {
	if f.data = nil; f.buf != nil {
		f.buf.Free()
		f.buf = nil
	}
}
