package rpcfront

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

const (
	rangePath = "/etcdserverpb.KV/Range"
	watchPath = "/etcdserverpb.Watch/Watch"
)

// client speaks HTTP/2 frame by frame.
type client struct {
	t      testing.TB
	nc     net.Conn
	framer *http2.Framer
	enc    *hpack.Encoder
	block  bytes.Buffer
	id     uint32 // of the last stream

	streams map[uint32][]string // what came on each, in words
	data    map[uint32]int      // bytes
	frames  map[uint32]int      // of data
	ended   map[uint32]bool
	said    map[uint32]bool // by the client: that it sends no more
	window  int             // the connection's, as given by the server beyond its start
	windows map[uint32]int
	sent    int // bytes of data
	acks    int // of settings
	pongs   int
	gone    string // what going away was said with
}

func connect(t testing.TB, addr string, settings ...http2.Setting) *client {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	return connectOver(t, nc, settings...)
}

func connectOver(t testing.TB, nc net.Conn, settings ...http2.Setting) *client {
	t.Helper()
	t.Cleanup(func() { nc.Close() })
	c := &client{
		t: t, nc: nc, framer: http2.NewFramer(nc, nc),
		streams: make(map[uint32][]string), data: make(map[uint32]int), frames: make(map[uint32]int), ended: make(map[uint32]bool), said: make(map[uint32]bool),
		windows: make(map[uint32]int),
	}
	c.id--
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.block)
	_, err := nc.Write([]byte(http2.ClientPreface))
	require.NoError(t, err)
	require.NoError(t, c.framer.WriteSettings(settings...))
	return c
}

// headers are those of a request; changes replace some ("name: value"), add others, or leave some out ("name").
func headers(path string, changes ...string) []hpack.HeaderField {
	all := []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path},
		{Name: ":authority", Value: "here:1"}, {Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}
	for _, change := range changes {
		name, value, set := strings.Cut(change, ": ")
		i := slices.IndexFunc(all, func(f hpack.HeaderField) bool { return f.Name == name })
		switch {
		case !set:
			all = slices.Delete(all, i, i+1)
		case i >= 0 && !strings.HasPrefix(value, "+"):
			all[i].Value = value
		case strings.HasPrefix(name, ":"):
			all = slices.Insert(all, 0, hpack.HeaderField{Name: name, Value: strings.TrimPrefix(value, "+")})
		default:
			all = append(all, hpack.HeaderField{Name: name, Value: strings.TrimPrefix(value, "+")})
		}
	}
	return all
}

func (c *client) encode(fields []hpack.HeaderField) []byte {
	c.block.Reset()
	for _, f := range fields {
		require.NoError(c.t, c.enc.WriteField(f))
	}
	return c.block.Bytes()
}

// open begins a stream.
func (c *client) open(fields []hpack.HeaderField, ended bool) uint32 {
	c.id += 2
	c.said[c.id] = ended
	require.NoError(c.t, c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: c.id, BlockFragment: c.encode(fields), EndHeaders: true, EndStream: ended,
	}))
	return c.id
}

func (c *client) send(id uint32, data []byte, ended bool) {
	c.sent += len(data)
	c.said[id] = ended
	require.NoError(c.t, c.framer.WriteData(id, ended, data))
}

// message is a gRPC message.
func message(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

// get asks for so many bytes.
func (c *client) get(bytes int64, changes ...string) uint32 {
	id := c.open(headers(rangePath, changes...), false)
	c.send(id, message(&pb.RangeRequest{Key: []byte("k"), Limit: bytes}), true)
	return id
}

func watch(bytes int64) []byte {
	return message(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{StartRevision: bytes}}})
}

// until reads frames until ok. It fails when the connection ends before.
func (c *client) until(ok func() bool) {
	c.t.Helper()
	for !ok() {
		require.NoError(c.t, c.read(), "%v", c.gone)
	}
}

// untilEnd reads until the server ends the connection, or says why it will, and returns that.
func (c *client) untilEnd() string {
	for c.gone == "" && c.read() == nil {
	}
	return c.gone
}

// settle reads all that the server has to say to what was sent before.
func (c *client) settle() {
	c.t.Helper()
	pongs := c.pongs
	require.NoError(c.t, c.framer.WritePing(false, [8]byte{}))
	c.until(func() bool { return c.pongs > pongs })
}

func (c *client) read() error {
	require.NoError(c.t, c.nc.SetReadDeadline(time.Now().Add(20*time.Second)))
	f, err := c.framer.ReadFrame()
	if err != nil {
		require.False(c.t, errors.Is(err, io.ErrUnexpectedEOF), "the connection ended within a frame")
		return err
	}
	id := f.Header().StreamID
	note := func(format string, args ...any) { c.streams[id] = append(c.streams[id], fmt.Sprintf(format, args...)) }
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		for _, h := range f.Fields {
			note("%s: %s", h.Name, h.Value)
		}
		c.ended[id] = f.StreamEnded()
		note("headers end=%v", f.StreamEnded())
	case *http2.DataFrame:
		require.Contains(c.t, c.streams[id], "headers end=false")
		require.False(c.t, c.ended[id])
		require.LessOrEqual(c.t, len(f.Data()), frameBytesMax)
		c.data[id] += len(f.Data())
		c.frames[id]++
		c.ended[id] = f.StreamEnded()
	case *http2.RSTStreamFrame:
		c.ended[id] = true
		note("reset %v", f.ErrCode)
	case *http2.SettingsFrame:
		if f.IsAck() {
			c.acks++
		} else {
			require.NoError(c.t, c.framer.WriteSettingsAck())
		}
	case *http2.WindowUpdateFrame:
		if id == 0 {
			c.window += int(f.Increment)
		} else {
			c.windows[id] += int(f.Increment)
		}
	case *http2.PingFrame:
		c.pongs++
	case *http2.GoAwayFrame:
		c.gone = fmt.Sprintf("%v %s", f.ErrCode, f.DebugData())
	}
	return nil
}
