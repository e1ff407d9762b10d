package rpcfront

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// FuzzWhatAClientSends sends anything after a preface. The connection ends when the client has, and all that came until then
// are whole frames.
func FuzzWhatAClientSends(f *testing.F) {
	var seed bytes.Buffer
	fr := http2.NewFramer(&seed, nil)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	headersOf := func(id uint32, path string) {
		block.Reset()
		for _, h := range headers(path, "grpc-timeout: 1S") {
			require.NoError(f, enc.WriteField(h))
		}
		require.NoError(f, fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true}))
	}
	require.NoError(f, fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}))
	f.Add(bytes.Clone(seed.Bytes()))
	headersOf(1, rangePath)
	require.NoError(f, fr.WriteData(1, true, message(&pb.RangeRequest{Limit: 200})))
	f.Add(bytes.Clone(seed.Bytes()))
	headersOf(3, watchPath)
	require.NoError(f, fr.WriteData(3, false, watch(200)))
	require.NoError(f, fr.WriteWindowUpdate(1, 100))
	f.Add(bytes.Clone(seed.Bytes()))
	headersOf(5, rangePath)
	headersOf(7, watchPath)
	require.NoError(f, fr.WriteDataPadded(7, false, watch(1), make([]byte, 3)))
	require.NoError(f, fr.WriteData(7, false, append(slices.Clip(watch(50)), watch(300)[:4]...)))
	require.NoError(f, fr.WriteData(7, true, watch(300)[4:]))
	require.NoError(f, fr.WriteWindowUpdate(7, 1000))
	f.Add(bytes.Clone(seed.Bytes()))
	require.NoError(f, fr.WriteDataPadded(5, true, message(&pb.RangeRequest{}), make([]byte, 3)))
	require.NoError(f, fr.WriteRSTStream(3, http2.ErrCodeCancel))
	require.NoError(f, fr.WritePing(false, [8]byte{}))
	require.NoError(f, fr.WriteGoAway(0, http2.ErrCodeNo, nil))
	f.Add(bytes.Clone(seed.Bytes()))

	s := serve(f, config(), &service{})
	f.Fuzz(func(t *testing.T, sent []byte) {
		nc, err := net.Dial("tcp", s.addr)
		require.NoError(t, err)
		defer nc.Close()
		require.NoError(t, nc.SetDeadline(time.Now().Add(20*time.Second)))
		go func() {
			_, _ = nc.Write(append([]byte(http2.ClientPreface), sent...)) // the server may have enough before
			_ = nc.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(nc)
		var late net.Error
		require.False(t, errors.As(err, &late) && late.Timeout(), "the connection goes on")
		for n := unit(got); n > 0; n = unit(got) {
			got = got[n:]
		}
		if err == nil { // else it was reset for what it had not read, and the rest may be lost
			require.Empty(t, got)
		}
	})
}
