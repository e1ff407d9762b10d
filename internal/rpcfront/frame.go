package rpcfront

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

const (
	frameHeaderBytes = 9
	// frameBytesMax is the largest payload of a frame, in both directions: what every HTTP/2
	// endpoint accepts.
	frameBytesMax = 16 << 10
	// prefixBytes precede a gRPC message: whether it is compressed, and its length.
	prefixBytes = 5
	// windowStart is the initial size of a window, windowMax the largest one.
	windowStart = 1<<16 - 1
	windowMax   = 1<<31 - 1
)

func payloadBytes(frame []byte) int { return int(frame[0])<<16 | int(frame[1])<<8 | int(frame[2]) }

func frameType(frame []byte) http2.FrameType { return http2.FrameType(frame[3]) }

func frameFlags(frame []byte) http2.Flags { return http2.Flags(frame[4]) }

func streamID(frame []byte) uint32 { return binary.BigEndian.Uint32(frame[5:]) & (1<<31 - 1) }

// appendHeader appends the header of a frame with n bytes.
func appendHeader(b []byte, kind http2.FrameType, flags http2.Flags, id uint32, n int) []byte {
	b = append(b, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(b, id)
}

// unit returns the length of the first frame of b together with the frames that must follow it
// directly; 0 when they have not all arrived.
func unit(b []byte) int {
	for n := 0; len(b)-n >= frameHeaderBytes; {
		frame := b[n:]
		if n += frameHeaderBytes + payloadBytes(frame); n > len(b) {
			return 0
		}
		if k := frameType(frame); k != http2.FrameHeaders && k != http2.FrameContinuation || frameFlags(frame).Has(http2.FlagHeadersEndHeaders) {
			return n
		}
	}
	return 0
}

// goAway ends a connection because the client is at fault.
type goAway struct {
	code http2.ErrCode
	text string
}

func (g goAway) Error() string { return "connection ended: " + g.code.String() + " " + g.text }
