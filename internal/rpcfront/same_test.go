package rpcfront

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
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
func body(path string, frames ...[]byte) func(*client) uint32 {
	return func(c *client) uint32 {
		id := c.open(headers(path), false)
		for i, f := range frames {
			c.send(id, f, i == len(frames)-1)
		}
		return id
	}
}

// stays is a stream whose client has sent frames and waits.
func stays(frames ...[]byte) func(*client) uint32 {
	return func(c *client) uint32 {
		id := c.open(headers(watchPath), false)
		for _, f := range frames {
			c.send(id, f, false)
		}
		return id
	}
}

// watchKey is a request on a stream that ends it as the key names.
func watchKey(k string) []byte {
	return message(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte(k)}}})
}

func requests() []request {
	all := append(oddHeaders(), oddStreams()...)
	small := message(&pb.RangeRequest{Key: []byte("k"), Limit: 3})
	large := message(&pb.RangeRequest{Key: make([]byte, 50_000)})
	for _, outcome := range outcomes {
		all = append(all, request{outcome, key(outcome)})
	}
	all = append(all, oddBodies(rangePath, small, large)...)
	return append(all, []request{
		{"plain", with()}, {"time limit first", turned(6)}, {"path behind others", turned(4)},
		{"answer of several frames", func(c *client) uint32 { return c.get(40_000) }},
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
	}...)
}

// outcomes are those that service knows by name.
var outcomes = []string{"status", "details", "error", "canceled", "nil"}

// oddHeaders are of calls and of streams.
func oddHeaders() []request {
	var all []request
	for name, changes := range map[string][]string{
		"metadata":                  {"a: 1", "a: +2", "user-agent: me", "grpc-accept-encoding: gzip"},
		"binary metadata":           {"a-bin: AAEC"},
		"malformed binary metadata": {"a-bin: !"},
		"reserved metadata":         {"grpc-message: x"},
		"content type with codec":   {"content-type: application/grpc+proto"},
		"unknown codec":             {"content-type: application/grpc+json"},
		"other content type":        {"content-type: text/html"},
		"no content type":           {"content-type"},
		"two content types":         {"content-type: +application/grpc"},
		"unknown service":           {":path: /a.B/C"}, "unknown method": {":path: /etcdserverpb.KV/C"},
		"malformed path": {":path: x"}, "empty path": {":path: "},
		"method without handler": {":path: /etcdserverpb.KV/Put"},
		"other verb":             {":method: PUT"}, "GET": {":method: GET"},
		"no authority": {":authority"}, "two authorities": {":authority: +there"},
		"host instead": {":authority", "host: h"}, "host too": {"host: h"}, "two hosts": {"host: h", "host: +i"},
		"connection": {"connection: close"},
		"time limit": {"grpc-timeout: 10S"}, "long time limit": {"grpc-timeout: 99999999H"},
		"no time": {"grpc-timeout: 0n"}, "malformed time limit": {"grpc-timeout: 5"},
		"unknown unit": {"grpc-timeout: 5x"}, "two time limits": {"grpc-timeout: 10S", "grpc-timeout: +20S"},
		"identity": {"grpc-encoding: identity"}, "unknown encoding": {"grpc-encoding: zip"},
		"upper case": {"Upper: x"}, "unknown pseudo header": {":x: +y"},
	} {
		all = append(all, request{name, with(changes...)}, request{name + ", stream", func(c *client) uint32 {
			id := c.open(headers(watchPath, changes...), false)
			c.send(id, watch(10), true)
			return id
		}})
	}
	slices.SortFunc(all, func(a, b request) int { return strings.Compare(a.name, b.name) })
	return all
}

// oddBodies are made of a small message and of one that is larger than three frames.
func oddBodies(path string, small, large []byte) []request {
	tooLarge := message(&pb.RangeRequest{Key: make([]byte, 2*maxRecvBytes)})
	all := []request{
		{"empty message", body(path, []byte{0, 0, 0, 0, 0})}, {"nothing", body(path, nil)}, {"part of a prefix", body(path, small[:3])},
		{"part of a message", body(path, small[:len(small)-1])}, {"only a prefix", body(path, small[:5])},
		{"two messages", body(path, small, small)}, {"two messages in a frame", body(path, append(slices.Clip(small), small...))},
		{"garbage", body(path, []byte{0, 0, 0, 0, 1, 0xff})},
		{"in two frames", body(path, small[:4], small[4:])}, {"end by itself", body(path, small, nil)}, {"empty frames before", body(path, nil, nil, small, nil)},
		{"empty frame before the end", body(path, small, []byte{}, []byte{})},
		{"large", body(path, large[:16384], large[16384:32768], large[32768:49152], large[49152:])},
		{"too large", body(path, tooLarge[:16384], tooLarge[16384:32768], nil)},
		{"compressed without encoding", body(path, append([]byte{1}, small[1:]...))},
		{"unknown format", body(path, append([]byte{2}, small[1:]...))},
		{"ends with headers", func(c *client) uint32 { return c.open(headers(path), true) }},
	}
	for i := range all {
		all[i].name += " " + path
	}
	return all
}

// oddStreams are what only streams can do.
func oddStreams() []request {
	large := message(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: make([]byte, 50_000)}}})
	all := append(oddBodies(watchPath, watch(3), large), []request{
		{"several messages", body(watchPath, watch(20_000), watch(0), watch(50_000), watch(1))},
		{"messages across frames", body(watchPath, watch(1)[:2], append(slices.Clip(watch(1)[2:]), watch(2)[:7]...), watch(2)[7:])},
		{"part of a later message", body(watchPath, watch(1), watch(1)[:6])},
		{"garbage after an answer", stays(watch(1), []byte{0, 0, 0, 0, 1, 0xff})},
		{"compressed after an answer", stays(watch(1), append([]byte{1}, watch(1)[1:]...))},
		{"too large after an answer", stays(watch(1), []byte{0, 0xff, 0, 0, 0})},
		{"padded stream", func(c *client) uint32 {
			id := c.open(headers(watchPath), false)
			require.NoError(c.t, c.framer.WriteDataPadded(id, false, watch(1)[:3], make([]byte, 100)))
			require.NoError(c.t, c.framer.WriteDataPadded(id, true, watch(1)[3:], make([]byte, 255)))
			return id
		}},
		{"data after the end", func(c *client) uint32 {
			id := c.open(headers(watchPath, "wait: 1"), false)
			c.send(id, nil, true)
			c.send(id, watch(1), false)
			return id
		}},
		{"window", func(c *client) uint32 {
			id := c.open(headers(watchPath), false)
			require.NoError(c.t, c.framer.WriteWindowUpdate(id, 1000))
			c.send(id, watch(100), true)
			return id
		}},
		{"no window", func(c *client) uint32 {
			id := c.open(headers(watchPath), false)
			require.NoError(c.t, c.framer.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4)))
			return id
		}},
	}...)
	for _, outcome := range outcomes {
		all = append(all, []request{
			{outcome + " at once", stays(watchKey(outcome))},
			{outcome + " after an answer", stays(watch(9), watchKey(outcome))},
			{outcome + " after a large answer", stays(watch(200_000), watchKey(outcome))},
			{outcome + " at the client's end", body(watchPath, watch(9), watchKey(outcome))},
			{outcome + " before the client's", body(watchPath, watchKey(outcome), watch(9))},
		}...)
	}
	return all
}

// TestNobodySeesADifference sends odd requests, each twice so that headers come known the second time, to grpc-go and
// to this package (F1). All share a connection: none of the answers spoils the table of headers for the next (F2).
func TestNobodySeesADifference(t *testing.T) {
	s := &service{}
	wide := http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}
	ours, grpcs := connect(t, serve(t, config(), s).addr, wide), connect(t, serveGRPC(t, s), wide)
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

// ask returns what a request is answered with. What follows the end of a stream comes before the answer to the next one.
func ask(c *client, r request) ([]string, string) {
	c.t.Helper()
	id := r.send(c)
	c.until(func() bool { return c.ended[id] })
	next := c.get(0)
	c.until(func() bool { return c.ended[next] })
	got := c.streams[id]
	if c.said[id] { // else it is reset after its end, and here perhaps, if the server has ended it before
		got = slices.DeleteFunc(got, func(s string) bool { return s == "reset NO_ERROR" })
	}
	return got, fmt.Sprintf("%d bytes", c.data[id])
}
