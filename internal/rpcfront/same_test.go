package rpcfront

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
)

// request is what a client may send on a stream.
type request struct {
	name string
	send func(c *client) uint32
}

// with sends a small request with other headers.
func with(changes ...string) func(*client) uint32 {
	return func(c *client) uint32 { return c.get(3, changes...) }
}

// key asks for a key.
func key(k string) func(*client) uint32 {
	return func(c *client) uint32 {
		id := c.open(headers(rangePath), false)
		c.send(id, message(&pb.RangeRequest{Key: []byte(k)}), true)
		return id
	}
}

// turned sends a small request whose last headers come first.
func turned(from int) func(*client) uint32 {
	return func(c *client) uint32 {
		fields := headers(rangePath, "grpc-timeout: 10S")
		id := c.open(append(fields[from:], fields[:from]...), false)
		c.send(id, message(&pb.RangeRequest{Key: []byte("k"), Limit: 3}), true)
		return id
	}
}

// body sends frames of data.
func body(frames ...[]byte) func(*client) uint32 {
	return func(c *client) uint32 {
		id := c.open(headers(rangePath), false)
		for i, f := range frames {
			c.send(id, f, i == len(frames)-1)
		}
		return id
	}
}

func requests() []request {
	small := message(&pb.RangeRequest{Key: []byte("k"), Limit: 3})
	large := message(&pb.RangeRequest{Key: make([]byte, 50_000)})
	tooLarge := message(&pb.RangeRequest{Key: make([]byte, 2*maxRecvBytes)})
	compressed := append([]byte{1}, small[1:]...)
	all := []request{
		{"plain", with()},
		{"answer of several frames", func(c *client) uint32 { return c.get(40_000) }},
		{"metadata", with("a: 1", "a: +2", "user-agent: me", "grpc-accept-encoding: gzip")},
		{"binary metadata", with("a-bin: AAEC")},
		{"malformed binary metadata", with("a-bin: !")},
		{"reserved metadata", with("grpc-message: x")},
		{"status", key("status")}, {"details", key("details")}, {"plain error", key("error")}, {"context error", key("canceled")}, {"no answer", key("nil")},
		{"content type with codec", with("content-type: application/grpc+proto")},
		{"unknown codec", with("content-type: application/grpc+json")},
		{"other content type", with("content-type: text/html")},
		{"no content type", with("content-type")},
		{"two content types", with("content-type: +application/grpc")},
		{"unknown service", with(":path: /a.B/C")}, {"unknown method", with(":path: /etcdserverpb.KV/C")},
		{"malformed path", with(":path: x")}, {"empty path", with(":path: ")},
		{"method without handler", with(":path: /etcdserverpb.KV/Put")},
		{"other verb", with(":method: PUT")}, {"GET", with(":method: GET")},
		{"no authority", with(":authority")}, {"two authorities", with(":authority: +there")},
		{"host instead", with(":authority", "host: h")}, {"host too", with("host: h")}, {"two hosts", with("host: h", "host: +i")},
		{"connection", with("connection: close")},
		{"time limit", with("grpc-timeout: 10S")}, {"long time limit", with("grpc-timeout: 99999999H")},
		{"no time", with("grpc-timeout: 0n")}, {"malformed time limit", with("grpc-timeout: 5")},
		{"unknown unit", with("grpc-timeout: 5x")}, {"two time limits", with("grpc-timeout: 10S", "grpc-timeout: +20S")},
		{"identity", with("grpc-encoding: identity")}, {"unknown encoding", with("grpc-encoding: zip")},
		{"compressed without encoding", body(compressed)},
		{"upper case", with("Upper: x")}, {"unknown pseudo header", with(":x: +y")}, {"two paths", with(":path: +/x")},
		{"no name", with(": x")}, {"line end in a value", with("a: x\ny")},
		{"time limit first", turned(6)}, {"path behind others", turned(4)},
		{"empty message", body([]byte{0, 0, 0, 0, 0})}, {"nothing", body(nil)}, {"part of a prefix", body(small[:3])},
		{"part of a message", body(small[:len(small)-1])}, {"two messages", body(small, small)}, {"two messages in a frame", body(append(small, small...))},
		{"garbage", body([]byte{0, 0, 0, 0, 1, 0xff})},
		{"in two frames", body(small[:4], small[4:])}, {"end by itself", body(small, nil)}, {"empty frames before", body(nil, nil, small, nil)},
		{"empty frame before the end", body(small, []byte{}, []byte{})},
		{"large", body(large[:16384], large[16384:32768], large[32768:49152], large[49152:])},
		{"too large", body(tooLarge[:16384], tooLarge[16384:32768], nil)},
		{"ends with headers", func(c *client) uint32 { return c.open(headers(rangePath), true) }},
		{"padded", func(c *client) uint32 {
			id := c.open(headers(rangePath), false)
			require.NoError(c.t, c.framer.WriteDataPadded(id, true, small, make([]byte, 100)))
			return id
		}},
		{"padded headers with priority", func(c *client) uint32 {
			c.id += 2
			require.NoError(c.t, c.framer.WriteHeaders(http2.HeadersFrameParam{
				StreamID: c.id, BlockFragment: c.encode(headers(rangePath)), EndHeaders: true, PadLength: 9, Priority: http2.PriorityParam{Weight: 7},
			}))
			c.send(c.id, small, true)
			return c.id
		}},
		{"headers in parts", func(c *client) uint32 {
			c.id += 2
			block := c.encode(headers(rangePath, "long: "+string(bytes.Repeat([]byte("x"), 100))))
			require.NoError(c.t, c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.id, BlockFragment: block[:2]}))
			require.NoError(c.t, c.framer.WriteContinuation(c.id, false, block[2:5]))
			require.NoError(c.t, c.framer.WriteContinuation(c.id, true, block[5:]))
			c.send(c.id, small, true)
			return c.id
		}},
		{"window before the end", func(c *client) uint32 {
			id := c.open(headers(rangePath), false)
			require.NoError(c.t, c.framer.WriteWindowUpdate(id, 1000))
			c.send(id, small, false)
			require.NoError(c.t, c.framer.WriteWindowUpdate(id, 1000))
			c.send(id, nil, true)
			return id
		}},
		{"stream", func(c *client) uint32 {
			id := c.open(headers(watchPath), false)
			c.send(id, watch(20_000), false)
			c.send(id, watch(1), true)
			return id
		}},
	}
	return all
}

// TestNobodySeesADifference sends odd requests, each twice so that headers come known the second time, to grpc-go and
// to this package (F1). All share a connection: none of the answers spoils the table of headers for the next (F2).
func TestNobodySeesADifference(t *testing.T) {
	s := &service{}
	ours, grpcs := connect(t, serve(t, config(), s).addr), connect(t, serveGRPC(t, s))
	for _, c := range []*client{ours, grpcs} {
		require.NoError(t, c.framer.WriteWindowUpdate(0, 1<<30))
	}
	for _, r := range requests() {
		for range 2 {
			want, wantData := ask(grpcs, r)
			got, gotData := ask(ours, r)
			require.Equal(t, want, got, r.name)
			require.Equal(t, wantData, gotData, r.name)
		}
	}
}

// TestCallsThatGoToGRPCAfterAllKeepTheirOrder begins calls, of which the first turns out to be none for us, when
// a later one has gone to grpc-go already (F1).
func TestCallsThatGoToGRPCAfterAllKeepTheirOrder(t *testing.T) {
	c := connect(t, serve(t, config(), &service{}).addr)
	small := message(&pb.RangeRequest{Key: []byte("k"), Limit: 3})
	first, second := c.open(headers(rangePath), false), c.open(headers(rangePath), false)
	c.send(second, small, false)
	third := c.open(headers(watchPath), false)
	c.send(third, watch(3), true)
	c.send(first, small[:3], false)
	c.send(first, small[3:], true)
	c.send(second, nil, true)
	c.until(func() bool { return c.ended[first] && c.ended[second] && c.ended[third] })
	for id := first; id <= third; id += 2 {
		require.Contains(t, c.streams[id], "grpc-status: 0", id)
	}
}

// ask returns what a request is answered with.
func ask(c *client, r request) ([]string, string) {
	c.t.Helper()
	id := r.send(c)
	c.until(func() bool { return c.ended[id] })
	return c.streams[id], fmt.Sprintf("%d bytes", c.data[id])
}
