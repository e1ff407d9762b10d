package rpcfront

import (
	"bytes"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/test/bufconn"
)

// TestAnswersWaitForTheWindowOfTheirStream is F3: a call whose client takes no more delays no other.
func TestAnswersWaitForTheWindowOfTheirStream(t *testing.T) {
	c := connect(t, serve(t, config(), &service{}).addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
	window := func(bytes uint32) {
		require.NoError(t, c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: bytes}))
	}
	stands := func(id uint32, bytes int) { // at so many bytes, whatever else is served
		t.Helper()
		c.until(func() bool { return c.data[id] >= bytes })
		small := c.get(0)
		c.until(func() bool { return c.ended[small] })
		require.Equal(t, bytes, c.data[id])
	}
	large := c.get(1000)
	stands(large, 100)
	require.NoError(t, c.framer.WriteWindowUpdate(large, 50))
	stands(large, 150)

	// The setting holds for streams that are open, too: a smaller one may leave less than nothing.
	window(30)
	require.NoError(t, c.framer.WriteWindowUpdate(large, 60))
	stands(large, 150)
	window(50)
	stands(large, 160)
	require.NoError(t, c.framer.WriteWindowUpdate(large, 1000))
	c.until(func() bool { return c.ended[large] })
	require.Contains(t, c.streams[large], "grpc-status: 0")

	// What comes for a stream before its request does counts too.
	id := c.open(headers(rangePath), false)
	require.NoError(t, c.framer.WriteWindowUpdate(id, 1000))
	c.send(id, message(&pb.RangeRequest{Limit: 1000}), true)
	c.until(func() bool { return c.ended[id] })

	// Who resets a stream waits for nothing.
	reset := c.get(1000)
	stands(reset, 50)
	require.NoError(t, c.framer.WriteRSTStream(reset, http2.ErrCodeCancel))
	require.NoError(t, c.framer.WriteWindowUpdate(reset, 1000))
	stands(reset, 50)
}

// TestAllShareTheWindowOfTheConnection is F3 for the connection: calls, streams, and grpc-go's, get it in turn, and not a byte more.
func TestAllShareTheWindowOfTheConnection(t *testing.T) {
	c := connect(t, serve(t, config(), &service{}).addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10_000_000})
	relayed := c.open(headers(watchPath, "content-type: application/grpc+proto"), false)
	c.send(relayed, watch(600_000), true)
	stream := c.open(headers(watchPath), false)
	c.send(stream, watch(600_000), true)
	all := []uint32{relayed, stream, c.get(600_000), c.get(600_000)}
	total := func() (bytes int) {
		for _, id := range all {
			bytes += c.data[id]
		}
		return bytes
	}
	every := func(ok func(id uint32) bool) bool {
		return !slices.ContainsFunc(all, func(id uint32) bool { return !ok(id) })
	}
	granted := windowStart
	for !every(func(id uint32) bool { return c.data[id] > 0 }) {
		c.until(func() bool { return total() >= granted })
		require.Equal(t, granted, total())
		require.NoError(t, c.framer.WriteWindowUpdate(0, 40_000))
		granted += 40_000
	}
	all = append(all, c.get(1)) // it waits as well
	c.until(func() bool { return total() == granted })
	require.NoError(t, c.framer.WriteWindowUpdate(0, 10_000_000))
	c.until(func() bool { return every(func(id uint32) bool { return c.ended[id] }) })
	require.Contains(t, c.streams[relayed], "grpc-status: 0")
	require.Contains(t, c.streams[stream], "grpc-status: 0")
	require.Greater(t, total(), 2_400_000)
}

// TestWhatAClientSendsIsGivenBackOnce is F4.
func TestWhatAClientSendsIsGivenBackOnce(t *testing.T) {
	c := connect(t, serve(t, config(), &service{}).addr)
	c.until(func() bool { return c.acks == 1 })
	const extra = 4<<20 - windowStart // what grpc-go makes the window wider at first
	require.Equal(t, extra, c.window)
	answered := uint32(0)
	wait := func() { c.until(func() bool { return c.ended[answered] }) }
	big := message(&pb.RangeRequest{Key: make([]byte, 15_000)})
	// As much as makes either of the two give back something: a quarter of the window for grpc-go.
	for i := range 400 {
		switch i % 4 {
		case 0: // answered here
			answered = c.open(headers(rangePath), false)
			c.send(answered, big, true)
		case 1: // by grpc-go, after all
			answered = c.open(headers(rangePath), false)
			c.send(answered, big, false)
			c.send(answered, nil, false)
			c.send(answered, nil, true)
		case 2: // by nobody
			id := c.open(headers(rangePath), false)
			c.send(id, big, false)
			require.NoError(t, c.framer.WriteRSTStream(id, http2.ErrCodeCancel))
		case 3: // a stream that has ended
			c.send(answered, big, false)
		}
		wait()
		require.NoError(t, c.framer.WriteWindowUpdate(0, 15_100))
	}
	c.settle()
	require.LessOrEqual(t, c.window, extra+c.sent)
	require.Greater(t, c.window, extra+c.sent-giveBackBytes-(4<<20)/4)
}

// TestWhoDoesNotReadIsNotReadEither is F6: what a client is answered while it does not read is bounded, though the calls that were answered
// are none any more.
func TestWhoDoesNotReadIsNotReadEither(t *testing.T) {
	for said, ask := range map[string]func(c *client) (answerBytes int){
		"settings": func(c *client) int {
			require.NoError(t, c.framer.WriteSettings())
			return frameHeaderBytes
		},
		"calls that are refused": func(c *client) int {
			c.send(c.open(headers(rangePath), false), message(&pb.RangeRequest{Key: []byte("status")}), true)
			return frameHeaderBytes + len("50% of it is missing")
		},
		"methods that there are not": func(c *client) int {
			c.open(headers("/here/Nothing"), true)
			return frameHeaderBytes + len("unknown service here")
		},
	} {
		t.Run(said, func(t *testing.T) {
			l := bufconn.Listen(4 << 10) // no other buffer is between
			s := serveAt(t, l, config(), &service{})
			nc, err := l.Dial()
			require.NoError(t, err)
			c := connectOver(t, nc, http2.Setting{ID: http2.SettingInitialWindowSize, Val: windowMax})
			require.NoError(t, c.framer.WriteWindowUpdate(0, windowMax-windowStart))
			c.until(func() bool { return c.acks == 1 })
			c.get(3 * outBytesMax) // so that a worker waits for the socket
			front := s.conns(t)[0]
			look := func() (waiting int, writes bool) {
				front.mu.Lock()
				defer front.mu.Unlock()
				return len(*front.out.buf), front.out.writing && len(front.out.waiting) > 0
			}
			for _, writes := look(); !writes; _, writes = look() {
				runtime.Gosched()
			}
			var asked bytes.Buffer
			c.framer = http2.NewFramer(&asked, nil)
			for expected := 0; expected < 4*outBytesMax; {
				expected += ask(c)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_, _ = nc.Write(asked.Bytes()) // until the end of the connection, if the server does not read all
			}()
			require.Never(t, func() bool {
				waiting, _ := look()
				return waiting > 3*outBytesMax
			}, time.Second, time.Millisecond) // settings wait for grpc-go, too
			s.stop()
			<-ended
		})
	}
}
