package mvcc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/flotilla-kv/flotilla/shard"
)

// A frame is length(4) ‖ type(1) ‖ payload(length) ‖ crc32c of all before(4), numbers
// little endian.

// frameBytesMax refuses a length that no writer produces: one value may exceed frameBytes, but
// requests are limited to far less than this.
const frameBytesMax = 1 << 30

var crcTable = crc32.MakeTable(crc32.Castagnoli)

type frameWriter struct {
	w    io.Writer
	buf  []byte
	sums uint32 // crc of the checksums of all frames written
}

func (f *frameWriter) write(kind byte, payload []byte) error {
	f.buf = binary.LittleEndian.AppendUint32(f.buf[:0], uint32(len(payload)))
	f.buf = append(f.buf, kind)
	f.buf = append(f.buf, payload...)
	f.buf = binary.LittleEndian.AppendUint32(f.buf, crc32.Checksum(f.buf, crcTable))
	f.sums = crc32.Update(f.sums, crcTable, f.buf[len(f.buf)-4:])
	if _, err := f.w.Write(f.buf); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}

type frameReader struct {
	r    io.Reader
	buf  []byte
	sums uint32 // crc of the checksums of all frames read
}

// next returns a checked frame; payload is valid until the next call. The end of the
// stream is an error: a tail comes before it.
func (f *frameReader) next() (kind byte, payload []byte, err error) {
	const before, after = 5, 4
	var head [before]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return 0, nil, cutShort(err)
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > frameBytesMax {
		return 0, nil, fmt.Errorf("snapshot frame of %d bytes: %w", n, shard.ErrCorrupt)
	}
	// Grows with what arrives, so that a damaged length takes no memory.
	buf := bytes.NewBuffer(append(f.buf[:0], head[:]...))
	if _, err := io.CopyN(buf, f.r, int64(n)+after); err != nil {
		return 0, nil, cutShort(err)
	}
	f.buf = buf.Bytes()
	body, sum := f.buf[:before+n], f.buf[before+n:]
	if crc32.Checksum(body, crcTable) != binary.LittleEndian.Uint32(sum) {
		return 0, nil, fmt.Errorf("snapshot frame fails its checksum: %w", shard.ErrCorrupt)
	}
	f.sums = crc32.Update(f.sums, crcTable, sum)
	return head[4], body[before:], nil
}

func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("snapshot ends before its tail: %w", shard.ErrCorrupt)
	}
	return fmt.Errorf("receive frame: %w", err)
}
