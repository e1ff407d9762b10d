package raftnet

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"

	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

func frame(k kind, payload []byte) []byte {
	out := make([]byte, headerBytes, headerBytes+len(payload))
	putHeader(out, k, payload)
	return append(out, payload...)
}

func TestFramesRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	var want [][]byte
	for i := range 50 {
		payload := make([]byte, rng.IntN(3)*rng.IntN(100_000))
		for j := range payload {
			payload[j] = byte(rng.Uint32())
		}
		want = append(want, payload)
		stream = append(stream, frame(kind(1+i%3), payload)...)
	}
	r := bufio.NewReaderSize(bytes.NewReader(stream), 100)
	var buf []byte
	for i, payload := range want {
		k, got, err := readFrame(r, buf)
		require.NoError(t, err)
		require.Equal(t, kind(1+i%3), k)
		require.True(t, bytes.Equal(payload, got))
		buf = got
	}
	_, _, err := readFrame(r, buf)
	require.Equal(t, io.EOF, err, "the end between two frames is a good one")
}

// X1: no single changed bit and no cut goes unnoticed, those in the header included.
func TestDamagedFramesAreNoticed(t *testing.T) {
	good := frame(kindMessages, []byte("some payload"))
	for bit := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		_, _, err := readFrame(bufio.NewReader(bytes.NewReader(bad)), nil)
		require.Error(t, err, "bit %d", bit)
	}
	for size := 1; size < len(good); size++ {
		_, _, err := readFrame(bufio.NewReader(bytes.NewReader(good[:size])), nil)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%d bytes", size)
	}
}

// X1: a damaged header is noticed by itself. A receiver that believed its length would wait for what is never sent, and
// take the frames that follow for that.
func TestADamagedHeaderIsNoticedAtOnce(t *testing.T) {
	good := frame(kindMessages, nil)
	for bit := range 8 * headerBytes {
		r, w := io.Pipe()
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		go func() { _, _ = w.Write(bad) }() // and nothing more comes
		_, _, err := readFrame(bufio.NewReader(r), nil)
		require.Error(t, err, "bit %d", bit)
	}
}

// A length that nothing follows takes no memory.
func TestLengthAloneTakesNoMemory(t *testing.T) {
	header := make([]byte, headerBytes)
	binary.BigEndian.PutUint32(header, frameBytesMax)
	binary.BigEndian.PutUint32(header[checkedBytes:], headerChecksum(header))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := readFrame(bufio.NewReader(bytes.NewReader(header)), nil)
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(8<<20))
}

// What Raft got from a frame stays as it was when the buffer is used again.
func TestMessagesOwnTheirBytes(t *testing.T) {
	h := newHub()
	b := newStation(t, h, "b", true)
	conn, err := h.dial(t.Context(), "b")
	require.NoError(t, err)
	_, err = conn.Write([]byte(Preface))
	require.NoError(t, err)
	for _, text := range []string{"first", "other"} {
		m := raftpb.MessageBatch{Requests: []raftpb.Message{{Type: raftpb.Replicate, Entries: []raftpb.Entry{{Cmd: []byte(text)}}}}}
		payload, err := m.Marshal()
		require.NoError(t, err)
		_, err = conn.Write(frame(kindMessages, payload))
		require.NoError(t, err)
		chunk := raftpb.Chunk{Data: []byte(text)}
		payload, err = chunk.Marshal()
		require.NoError(t, err)
		_, err = conn.Write(frame(kindChunk, payload))
		require.NoError(t, err)
	}
	for _, text := range []string{"first", "other"} {
		require.Equal(t, text, string((<-b.batches).Requests[0].Entries[0].Cmd))
		require.Equal(t, text, string((<-b.chunks).Data))
	}
	require.NoError(t, conn.Close())
	require.NoError(t, b.Close())
}

// X1: a payload that is no message, under a good checksum, ends its connection and
// nothing else.
func TestMalformedPayloadsEndTheConnection(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	m := raftpb.MessageBatch{SourceAddress: "a", Requests: []raftpb.Message{{Type: raftpb.Replicate, Entries: []raftpb.Entry{{Index: 9, Cmd: []byte("some command")}}}}}
	whole, err := m.Marshal()
	require.NoError(t, err)
	h := newHub()
	b := newStation(t, h, "b", true)
	for i := range 400 {
		payload := bytes.Clone(whole)
		for range 1 + rng.IntN(4) {
			payload[rng.IntN(len(payload))] = byte(rng.Uint32())
		}
		payload = payload[:len(payload)-rng.IntN(2)*rng.IntN(len(payload))]
		conn, err := h.dial(t.Context(), "b")
		require.NoError(t, err)
		deliver(conn, frame(kind(1+i%2), payload))
		for len(b.batches) > 0 { // some are messages, of another kind than was meant
			<-b.batches
		}
		for len(b.chunks) > 0 {
			<-b.chunks
		}
	}
	require.NoError(t, b.Close())
}

// deliver sends a frame and the end, and waits until the receiver has hung up.
func deliver(conn net.Conn, f []byte) {
	_, _ = conn.Write([]byte(Preface))
	_, _ = conn.Write(f)
	_, _ = conn.Write(frame(kindEnd, nil))
	_, _ = io.Copy(io.Discard, conn)
	conn.Close()
}
