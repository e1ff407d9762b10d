package rpcfront

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
)

func TestWhatEndsAConnection(t *testing.T) {
	s := serve(t, config(), &service{})
	for said, send := range map[string]func(c *client){
		"PROTOCOL_ERROR even": func(c *client) {
			c.id = 0
			c.open(headers(rangePath), false)
		},
		"PROTOCOL_ERROR smaller": func(c *client) {
			c.id = 9
			c.get(1)
			c.id = 3
			c.get(1)
		},
		"PROTOCOL_ERROR data":      func(c *client) { c.send(7, nil, true) },
		"PROTOCOL_ERROR reset":     func(c *client) { _ = c.framer.WriteRSTStream(7, http2.ErrCodeCancel) },
		"PROTOCOL_ERROR window":    func(c *client) { _ = c.framer.WriteWindowUpdate(7, 1) },
		"PROTOCOL_ERROR no window": func(c *client) { _ = c.framer.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 4)) },
		"PROTOCOL_ERROR push": func(c *client) {
			_ = c.framer.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: []byte{0x88}, EndHeaders: true})
		},
		"PROTOCOL_ERROR frame size": func(c *client) { _ = c.framer.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}) },
		"PROTOCOL_ERROR order": func(c *client) {
			_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(headers(rangePath))})
			_ = c.framer.WritePing(false, [8]byte{})
		},
		"FLOW_CONTROL_ERROR setting": func(c *client) {
			_ = c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})
		},
		"FLOW_CONTROL_ERROR window": func(c *client) { _ = c.framer.WriteWindowUpdate(0, windowMax) },
		"FRAME_SIZE_ERROR data":     func(c *client) { c.send(c.open(headers(rangePath), false), make([]byte, frameBytesMax+1), true) },
		"FRAME_SIZE_ERROR headers": func(c *client) {
			_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 4)})
			_ = c.framer.WriteContinuation(1, true, make([]byte, frameBytesMax+1))
		},
		"COMPRESSION_ERROR table": func(c *client) {
			_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0x01}, EndHeaders: true})
		},
		"COMPRESSION_ERROR known": func(c *client) {
			_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xfe}, EndHeaders: true})
		},
	} {
		t.Run(said, func(t *testing.T) {
			c := connect(t, s.addr)
			send(c)
			require.Contains(t, said, c.untilEnd()) // the code is its first word
			require.NotEmpty(t, c.gone)
		})
	}
}

func TestSettingsAreAcknowledged(t *testing.T) {
	s := serve(t, config(), &service{})
	c := connect(t, s.addr)
	c.until(func() bool { return c.acks == 1 })
	require.Positive(t, c.window)
}

// A client that makes its table of headers smaller is not referred to what it may have lost.
func TestATableThatBecomesSmaller(t *testing.T) {
	s := serve(t, config(), &service{})
	c := connect(t, s.addr)
	first := c.get(1)
	c.until(func() bool { return c.ended[first] })
	require.NoError(t, c.framer.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}))
	c.framer.ReadMetaHeaders.SetMaxDynamicTableSize(0)
	next := c.get(1)
	c.until(func() bool { return c.ended[next] })
	require.Equal(t, c.streams[first], c.streams[next])
}

func TestWhatEndsAStreamOnly(t *testing.T) {
	s := serve(t, config(), &service{})
	c := connect(t, s.addr)
	refused := c.open(headers(rangePath, "bad name: x"), false)
	c.send(refused, nil, true) // to nobody
	wide := c.get(100_000)
	c.until(func() bool { return c.data[wide] > 0 })
	require.NoError(t, c.framer.WriteWindowUpdate(wide, windowMax))
	require.NoError(t, c.framer.WriteWindowUpdate(wide, 1))
	c.until(func() bool { return c.ended[refused] && c.ended[wide] })
	require.Contains(t, c.streams[refused], "reset PROTOCOL_ERROR")
	require.Contains(t, c.streams[wide], "reset FLOW_CONTROL_ERROR")
}

func TestDataAfterTheEndOfARequestEndsTheCall(t *testing.T) {
	svc, began, ended := waiting()
	c := connect(t, serve(t, config(), svc).addr)
	id := c.get(1)
	<-began
	c.send(id, nil, true)
	c.until(func() bool { return c.ended[id] })
	require.Equal(t, []string{"reset STREAM_CLOSED"}, c.streams[id])
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestWhoPingsTooOftenIsSentAway(t *testing.T) {
	s := serve(t, config(), &service{})
	ping := func(c *client) { require.NoError(t, c.framer.WritePing(false, [8]byte{1})) }

	// Round trips are measured when something came, call or stream, in one frame or several.
	c := connect(t, s.addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
	for range 5 {
		id := c.get(10)
		c.until(func() bool { return c.ended[id] })
		ping(c)
	}
	slow := c.get(500)
	for n := 100; n < 400; n += 10 {
		c.until(func() bool { return c.data[slow] == n })
		ping(c)
		require.NoError(t, c.framer.WriteWindowUpdate(slow, 10))
	}
	stream := c.open(headers(watchPath), false)
	answer := len(message(&pb.WatchResponse{CancelReason: "x"}))
	for n := range 5 {
		c.send(stream, watch(1), false)
		c.until(func() bool { return c.data[stream] == (n+1)*answer })
		ping(c)
	}
	require.Empty(t, c.gone)

	// Without anything: three are one too many, with streams open or not.
	for range 4 {
		ping(c)
	}
	require.Equal(t, "ENHANCE_YOUR_CALM too_many_pings", c.untilEnd())
	c = connect(t, s.addr)
	for range 4 {
		ping(c)
	}
	require.Equal(t, "ENHANCE_YOUR_CALM too_many_pings", c.untilEnd())
}

// TestPongsWaitForCompany is F10: answers to pings that measure wait for each other, but not when much is sent.
func TestPongsWaitForCompany(t *testing.T) {
	cfg := config()
	cfg.PongDelay = time.Hour
	c := connect(t, serve(t, cfg, &service{}).addr)
	ping := func() { require.NoError(t, c.framer.WritePing(false, [8]byte{1})) }
	get := func(bytes int64) {
		id := c.get(bytes)
		c.until(func() bool { return c.ended[id] })
	}
	get(10)
	ping()
	get(10)
	require.Zero(t, c.pongs)
	get(pongBytes)
	c.until(func() bool { return c.pongs == 1 })
	for range pongsMax {
		require.Equal(t, 1, c.pongs)
		get(10)
		ping()
	}
	c.until(func() bool { return c.pongs == 1+pongsMax })
	c.settle() // nothing was sent: a keepalive
}

// Without company a ping is answered by itself, and the next one too.
func TestAPongComesByItself(t *testing.T) {
	cfg := config()
	cfg.PongDelay = time.Millisecond
	c := connect(t, serve(t, cfg, &service{}).addr)
	for range 3 {
		id := c.get(10)
		c.until(func() bool { return c.ended[id] })
		c.settle()
	}
}

// TestHandlersOfWhatWasResetAreBounded is F6: a client cannot have ever more handlers by resetting its calls, or its streams.
func TestHandlersOfWhatWasResetAreBounded(t *testing.T) {
	for _, ask := range []func(*client) uint32{with(), stays(watch(1))} {
		began, finish := make(chan struct{}, 2*resetsMax), make(chan struct{})
		handle := func() error {
			began <- struct{}{}
			<-finish // whatever the client does
			return nil
		}
		c := connect(t, serve(t, config(), &service{
			handle: func(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
				return &pb.RangeResponse{}, handle()
			},
			watch: func(pb.Watch_WatchServer) error { return handle() },
		}).addr)
		release := sync.OnceFunc(func() { close(finish) })
		t.Cleanup(release)
		const calls = resetsMax + 100
		for range calls {
			require.NoError(t, c.framer.WriteRSTStream(ask(c), http2.ErrCodeCancel))
		}
		for range resetsMax + 1 {
			<-began
		}
		// The server does not read on: the pong comes after the handlers' end.
		require.NoError(t, c.framer.WritePing(false, [8]byte{}))
		require.NoError(t, c.nc.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		for err := error(nil); err == nil; {
			var f http2.Frame
			if f, err = c.framer.ReadFrame(); err == nil {
				require.NotEqual(t, http2.FramePing, f.Header().Type)
			}
		}
		release()
		for range calls - resetsMax - 1 {
			<-began
		}
		id := c.get(1)
		c.until(func() bool { return c.ended[id] })
	}
}

// TestHeadersThatAClientDoesNotTake compares with grpc-go what clients get that want small headers or a small table.
func TestHeadersThatAClientDoesNotTake(t *testing.T) {
	svc := &service{}
	s, grpcs := serve(t, config(), svc), serveGRPC(t, svc)
	for _, setting := range []http2.Setting{
		{ID: http2.SettingHeaderTableSize, Val: 0},
		{ID: http2.SettingMaxHeaderListSize, Val: 10}, {ID: http2.SettingMaxHeaderListSize, Val: 255}, {ID: http2.SettingMaxHeaderListSize, Val: 260},
	} {
		for _, r := range []request{{"plain", with()}, {"status", key("status")}, {"plain again", with()}} {
			want, wantData := ask(connect(t, grpcs, setting), r)
			got, gotData := ask(connect(t, s.addr, setting), r)
			require.Equal(t, want, got, "%v %s", setting, r.name)
			require.Equal(t, wantData, gotData, "%v %s", setting, r.name)
		}
	}
}
