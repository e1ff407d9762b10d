package raftnet

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// Preface is what a Raft connection starts with.
const Preface = "FLOTILLA-RAFT/2\n"

type kind byte

const (
	kindMessages kind = 1 // raftpb.MessageBatch
	kindChunk    kind = 2 // raftpb.Chunk
	kindEnd      kind = 3 // no more chunks; the receiver answers with the same byte (X2)
	kindAlive    kind = 4 // the receiver's sign of life (X4)
)

const (
	// A header is length, checksum of kind and payload, kind, and the checksum of these nine bytes.
	headerBytes  = checkedBytes + 4
	checkedBytes = 9
	// frameBytesMax exceeds what dragonboat puts into one batch or chunk; a larger frame is
	// garbage.
	frameBytesMax = 256 << 20
)

func putHeader(buf []byte, k kind, payload []byte) {
	binary.BigEndian.PutUint32(buf[0:4], uint32(len(payload)))
	buf[8] = byte(k)
	binary.BigEndian.PutUint32(buf[4:8], checksum(k, payload))
	binary.BigEndian.PutUint32(buf[checkedBytes:headerBytes], headerChecksum(buf))
}

// headerChecksum is of the header alone. With a damaged length the receiver would otherwise wait for a payload that is never
// complete, and take all that comes after it for that, for as long as it takes.
func headerChecksum(header []byte) uint32 {
	return crc32.Checksum(header[:checkedBytes], crc32.MakeTable(crc32.Castagnoli))
}

// checksum covers kind and payload, because a message must not be taken for a piece of a snapshot.
func checksum(k kind, payload []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(0, table, []byte{byte(k)}), table, payload)
}

// readFrame reads one frame into buf, grown as needed (X1). io.EOF is the end between
// two frames.
func readFrame(r *bufio.Reader, buf []byte) (kind, []byte, error) {
	var header [headerBytes]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	if headerChecksum(header[:]) != binary.BigEndian.Uint32(header[checkedBytes:]) {
		return 0, nil, errors.New("raft frame has a header with a wrong checksum")
	}
	size := int(binary.BigEndian.Uint32(header[0:4]))
	if size > frameBytesMax {
		return 0, nil, fmt.Errorf("raft frame of %d bytes is over the limit of %d", size, frameBytesMax)
	}
	buf, err := readPayload(r, buf, size)
	if err != nil {
		return 0, nil, err
	}
	k := kind(header[8])
	if checksum(k, buf) != binary.BigEndian.Uint32(header[4:8]) {
		return 0, nil, fmt.Errorf("raft frame of %d bytes has a wrong checksum", size)
	}
	return k, buf, nil
}

// growthBytes is how much a buffer grows at a time, so that a false length does not allocate memory.
const growthBytes = 1 << 20

func readPayload(r *bufio.Reader, buf []byte, size int) ([]byte, error) {
	buf = buf[:0]
	for len(buf) < size {
		n := min(size-len(buf), max(growthBytes, cap(buf)-len(buf)))
		buf = slices.Grow(buf, n)[:len(buf)+n]
		if _, err := io.ReadFull(r, buf[len(buf)-n:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return buf, nil
}
