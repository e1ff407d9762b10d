package peer

import (
	"google.golang.org/grpc/mem"
)

// incoming is a frame that came, encoded.
type incoming struct {
	// keep has the frame have memory of its own, for those who share it to keep. Otherwise data is gRPC's
	// until free.
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

// free lets go of the frame.
func (f *incoming) free() {
	if f.data = nil; f.buf != nil {
		f.buf.Free()
		f.buf = nil
	}
}
