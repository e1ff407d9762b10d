package rpcfront

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2/hpack"
)

// reader is a connection that decodes headers and does nothing else.
func reader() *conn {
	c := &conn{
		server:   &Server{methods: map[string]*method{rangePath: {path: rangePath}, watchPath: {path: watchPath}}},
		profiles: make(map[string]*profile), asked: make(map[uint32]*call), values: context.Background(),
	}
	c.headers.init()
	return c
}

// same requires that a block comes to the same with what is known of those before, and returns false if it cannot be decoded.
func (c *conn) same(t *testing.T, plain *hpack.Decoder, block []byte) bool {
	want, wantErr := plain.DecodeFull(block)
	fields, p, err := c.decode(1, block)
	require.Equal(t, wantErr != nil, err != nil, "%v %v", wantErr, err)
	if err != nil {
		return false
	}
	require.Len(t, fields, len(want))
	for i := range want {
		require.Equal(t, want[i], fields[i])
	}
	if p != nil {
		require.True(t, p.matches(want))
	}
	return true
}

// Calls of several methods, with time limits and without, with metadata that comes and goes: what is not decoded is what it was, and that is
// most of it.
func TestShapes(t *testing.T) {
	const seed = 1
	r := rand.New(rand.NewPCG(seed, 0))
	c, plain := reader(), hpack.NewDecoder(headerTableBytes, nil)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	found := 0
	const n = 20_000
	for range n {
		changes := []string{"grpc-accept-encoding: gzip", "user-agent: grpc-go/1.85.0"}
		if r.IntN(20) > 0 {
			changes = append(changes, fmt.Sprintf("grpc-timeout: %du", 4_999_000+r.IntN(1000)))
		}
		if r.IntN(50) == 0 {
			changes = append(changes, "token: "+strings.Repeat("x", r.IntN(5000)))
		}
		if r.IntN(3000) == 0 {
			enc.SetMaxDynamicTableSize(uint32(r.IntN(headerTableBytes)))
		}
		block.Reset()
		for _, f := range headers([]string{rangePath, watchPath}[r.IntN(2)], changes...) {
			f.Sensitive = r.IntN(1000) == 0
			require.NoError(t, enc.WriteField(f))
		}
		require.True(t, c.same(t, plain, block.Bytes()), "seed %d", seed)
		if s := &c.headers.shapes; s.plain && len(s.checked) > 0 {
			found++
		}
		c.headers.shapes.checked = nil
		require.False(t, c.headers.shapes.lost)
	}
	require.Greater(t, found, n/2)
}

// FuzzShapes: whatever the blocks are. A zero byte ends each.
func FuzzShapes(f *testing.F) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := range 4 {
		for _, h := range headers(rangePath, fmt.Sprintf("grpc-timeout: %dm", 100+i)) {
			require.NoError(f, enc.WriteField(h))
		}
		block.WriteByte(0)
	}
	f.Add(block.Bytes())
	f.Add([]byte("\x40\x01a\x01b\x00\xbe\x40\x0cgrpc-timeout\x011\x00\xbf\x7e\x012\x00\xc0\x7f\x00\x013\x00\x20\xbf\x7e\x012"))
	f.Fuzz(func(t *testing.T, blocks []byte) {
		c, plain := reader(), hpack.NewDecoder(headerTableBytes, nil)
		for block := range bytes.SplitSeq(blocks, []byte{0}) {
			if !c.same(t, plain, block) {
				return
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	var blocks [][]byte
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := range 10_000 {
		block.Reset()
		for _, f := range headers(rangePath, "user-agent: grpc-go/1.85.0", "client-version: 3.7", fmt.Sprintf("grpc-timeout: %du", 4_990_000+i)) {
			require.NoError(b, enc.WriteField(f))
		}
		blocks = append(blocks, bytes.Clone(block.Bytes()))
	}
	for b.Loop() {
		c := reader()
		for _, block := range blocks {
			if _, _, err := c.decode(1, block); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(blocks)), "ns/block")
}
