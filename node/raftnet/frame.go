package raftnet

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// Preface is what a Raft connection starts with.
const Preface = "FLOTILLA-RAFT/1\n"

type kind byte

const (
	kindMessages kind = 1 // raftpb.MessageBatch
	kindChunk    kind = 2 // raftpb.Chunk
	kindEnd      kind = 3 // no more chunks; the receiver answers with the same byte (X2)
	kindAlive    kind = 4 // the receiver's byte that says it is there (X4)
)

const (
	headerBytes = 9
	// frameBytesMax is above what dragonboat puts into one batch or chunk; more is
	// garbage.
	frameBytesMax = 256 << 20
)

func putHeader(buf []byte, k kind, payload []byte) {
	binary.BigEndian.PutUint32(buf[0:4], uint32(len(payload)))
	binary.BigEndian.PutUint32(buf[4:8], crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)))
	buf[8] = byte(k)
}

// readFrame reads one frame into buf, grown as needed (X1).
func readFrame(r *bufio.Reader, buf []byte) (kind, []byte, error) {
	var header [headerBytes]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(header[0:4])
	if size > frameBytesMax {
		return 0, nil, fmt.Errorf("raft frame of %d bytes is over the limit of %d", size, frameBytesMax)
	}
	if uint32(cap(buf)) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if _, err := io.ReadFull(r, buf); err != nil {
		return 0, nil, err
	}
	if sum := crc32.Checksum(buf, crc32.MakeTable(crc32.Castagnoli)); sum != binary.BigEndian.Uint32(header[4:8]) {
		return 0, nil, fmt.Errorf("raft frame of %d bytes has a wrong checksum", size)
	}
	return kind(header[8]), buf, nil
}
