package rpcfront

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// answerOf is a message of so many bytes, with its prefix.
func answerOf(bytes int) *pb.WatchResponse {
	r := &pb.WatchResponse{CancelReason: string(make([]byte, bytes))}
	for len(message(r)) > bytes {
		r.CancelReason = r.CancelReason[1:]
	}
	return r
}

// both has a service whose streams receive and send, at the same time, until either fails; then they tell both errors.
func both(answers ...int) (*service, chan [2]error) {
	ended := make(chan [2]error, 8)
	return &service{watch: func(stream pb.Watch_WatchServer) error {
		received := make(chan error, 1)
		go func() {
			_, err := stream.Recv()
			received <- err
		}()
		var err error
		for i := 0; i < len(answers) && err == nil; i++ {
			err = stream.Send(answerOf(answers[i]))
		}
		ended <- [2]error{<-received, err}
		return err
	}}, ended
}

// TestAStreamEndsForItsHandler is F5: by the client's reset, at its deadline and with the connection, for who
// receives and for who sends.
func TestAStreamEndsForItsHandler(t *testing.T) {
	for _, test := range []struct {
		limit string
		want  codes.Code
		end   func(*client, uint32)
	}{
		{"1H", codes.Canceled, func(c *client, id uint32) { require.NoError(t, c.framer.WriteRSTStream(id, http2.ErrCodeCancel)) }},
		{"1H", codes.Canceled, func(c *client, _ uint32) { require.NoError(t, c.nc.Close()) }},
		{"100m", codes.DeadlineExceeded, func(c *client, id uint32) { c.until(func() bool { return c.ended[id] }) }},
	} {
		svc, ended := both(50, 100)
		c := connect(t, serve(t, config(), svc).addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 60})
		id := c.open(headers(watchPath, "grpc-timeout: "+test.limit), false)
		c.until(func() bool { return c.data[id] == 60 }) // and no more
		test.end(c, id)
		for _, err := range <-ended {
			require.Equal(t, test.want, status.Code(err))
		}
	}
}

// TestAStreamWhoseClientDoesNotReadHoldsOneMessage is F6 and F3: its handler waits, with one message, and nobody else does.
func TestAStreamWhoseClientDoesNotReadHoldsOneMessage(t *testing.T) {
	const streams, bytes = 50, 30
	sent := make(chan int, streams*10)
	svc := &service{watch: func(stream pb.Watch_WatchServer) error {
		for i := range 10 {
			if err := stream.Send(answerOf(bytes)); err != nil {
				return err
			}
			sent <- i
		}
		return nil
	}}
	c := connect(t, serve(t, config(), svc).addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
	var ids []uint32
	for range streams {
		ids = append(ids, c.open(headers(watchPath), false))
	}
	for _, id := range ids {
		c.until(func() bool { return c.data[id] == 100 })
	}
	require.Len(t, sent, streams*3) // a part of the fourth was sent, so the third was
	for range 10 {
		small := c.get(10)
		c.until(func() bool { return c.ended[small] })
	}
	require.Len(t, sent, streams*3)
	for _, id := range ids[1:] {
		require.NoError(t, c.framer.WriteWindowUpdate(id, 1000))
	}
	for _, id := range ids[1:] {
		c.until(func() bool { return c.ended[id] })
		require.Equal(t, 10*bytes, c.data[id])
	}
	require.Equal(t, 100, c.data[ids[0]])
}

// TestMessagesThatAreLargeAreSentWhole has streams share windows that are smaller than their messages.
func TestMessagesThatAreLargeAreSentWhole(t *testing.T) {
	svc := &service{}
	c := connect(t, serve(t, config(), svc).addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10_000_000})
	var ids []uint32
	for _, size := range []int64{300_000, 10, 2_000_000, 16_000} {
		id := c.open(headers(watchPath), false)
		c.send(id, watch(size), false)
		c.send(id, watch(size), true)
		ids = append(ids, id)
	}
	for _, id := range ids {
		for !c.ended[id] {
			total := 0
			for _, n := range c.data {
				total += n
			}
			require.NoError(t, c.framer.WriteWindowUpdate(0, 20_000))
			c.until(func() bool {
				now := 0
				for _, n := range c.data {
					now += n
				}
				return now > total || c.ended[id]
			})
		}
		require.Contains(t, c.streams[id], "grpc-status: 0")
	}
	require.Greater(t, c.data[ids[2]], 4_000_000)
}

// TestAHandlerMayEndWhileAMessageIsBeingSent has the message arrive whole, and the end behind it.
func TestAHandlerMayEndWhileAMessageIsBeingSent(t *testing.T) {
	finish, sent := make(chan struct{}), make(chan error, 1)
	svc := &service{watch: func(stream pb.Watch_WatchServer) error {
		go func() { sent <- stream.Send(answerOf(1000)) }()
		<-finish
		return status.Error(codes.Aborted, "enough")
	}}
	c := connect(t, serve(t, config(), svc).addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
	id := c.open(headers(watchPath), false)
	c.until(func() bool { return c.data[id] == 100 })
	close(finish)
	require.Equal(t, codes.Canceled, status.Code(<-sent)) // nobody waits for the client any more
	require.NoError(t, c.framer.WriteWindowUpdate(id, 900))
	c.until(func() bool { return c.ended[id] })
	require.Equal(t, 1000, c.data[id])
	require.Contains(t, c.streams[id], "grpc-message: enough")
}

func TestMessagesMayLeaveTogether(t *testing.T) {
	svc := &service{watch: func(stream pb.Watch_WatchServer) error {
		s := StreamOf(stream.Context())
		if s == nil {
			return status.Error(codes.Aborted, "not served here")
		}
		for range 3 {
			if err := s.SendLater(answerOf(100)); err != nil {
				return err
			}
		}
		s.Flush()
		<-stream.Context().Done()
		return nil
	}}
	c := connect(t, serve(t, config(), svc).addr)
	c.until(func() bool { return c.acks == 1 })
	c.settle()
	id := c.open(headers(watchPath), false)
	c.until(func() bool { return c.data[id] == 300 })
	require.Equal(t, 1, c.frames[id])
	id = c.open(headers(watchPath, "content-type: application/grpc+proto"), false)
	c.until(func() bool { return c.ended[id] })
	require.Contains(t, c.streams[id], "grpc-message: not served here")
}

// TestMessagesThatShareFrames is F8 for streams of one connection whose messages leave together, in frames of any client's size.
func TestMessagesThatShareFrames(t *testing.T) {
	sizes := []int{20, 30, frameBytesMax, 40, frameBytesMax - 50, 50, 20_000, 60, 70}
	var streams []*Stream
	began, finish := make(chan *Stream), make(chan struct{})
	s := serve(t, config(), &service{watch: func(stream pb.Watch_WatchServer) error {
		began <- StreamOf(stream.Context())
		<-finish
		return nil
	}})
	c := connect(t, s.addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	require.NoError(t, c.framer.WriteWindowUpdate(0, 1<<20))
	c.settle()
	var ids []uint32
	for range 2 {
		ids = append(ids, c.open(headers(watchPath), false))
		streams = append(streams, <-began)
	}
	total := 0
	for _, bytes := range sizes {
		for _, of := range []*Stream{streams[0], streams[0], streams[1]} {
			require.NoError(t, of.SendLater(answerOf(bytes)))
		}
		total += bytes
	}
	streams[1].Flush()
	close(finish)
	c.until(func() bool { return c.ended[ids[0]] && c.ended[ids[1]] })
	for i, id := range ids {
		require.Equal(t, (2-i)*total, c.data[id])
	}
}

// TestWhatAStreamReceivesIsGivenBack is F4 and F6: the client may send so much beyond what was received, and no more.
func TestWhatAStreamReceivesIsGivenBack(t *testing.T) {
	receive, received := make(chan struct{}), make(chan int, 1000)
	cfg := config()
	cfg.MaxRecvBytes = 4 << 20
	s := serve(t, cfg, &service{watch: func(stream pb.Watch_WatchServer) error {
		<-receive
		for n := 0; ; n++ {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			received <- len(r.GetCreateRequest().GetKey())
		}
	}})
	c := connect(t, s.addr)
	c.until(func() bool { return c.acks == 1 && c.window > 0 })
	request := func(bytes int) []byte {
		return message(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: make([]byte, bytes)}}})
	}
	id, sent := c.open(headers(watchPath), false), 0
	send := func(data []byte) { // as the windows allow
		for len(data) > 0 {
			c.until(func() bool { return sent < streamWindow+c.windows[id] && c.sent < windowStart+c.window })
			n := min(len(data), frameBytesMax, streamWindow+c.windows[id]-sent, windowStart+c.window-c.sent)
			c.send(id, data[:n], false)
			data, sent = data[n:], sent+n
		}
	}
	one := request(10_000)
	for range 100 { // nobody receives: it fits
		send(one)
	}
	c.settle()
	require.Zero(t, c.windows[id])
	close(receive)
	for range 300 {
		send(one)
	}
	send(request(3 << 20)) // more than the window, at once
	send(one)
	for range 400 {
		require.Equal(t, 10_000, <-received)
	}
	require.Equal(t, 3<<20, <-received)
	require.Equal(t, 10_000, <-received)
	c.settle()
	require.LessOrEqual(t, c.windows[id], sent)
	require.Greater(t, c.windows[id], sent-streamWindow/4)
}

func TestAStreamBeyondItsWindowIsReset(t *testing.T) {
	began := make(chan context.Context, 1)
	c := connect(t, serve(t, config(), &service{watch: func(stream pb.Watch_WatchServer) error {
		began <- stream.Context()
		<-stream.Context().Done()
		return nil
	}}).addr)
	c.until(func() bool { return c.acks == 1 })
	id := c.open(headers(watchPath), false)
	for range streamWindow/frameBytesMax + 1 {
		c.send(id, make([]byte, frameBytesMax), false)
	}
	c.until(func() bool { return c.ended[id] })
	require.Equal(t, []string{"reset FLOW_CONTROL_ERROR"}, c.streams[id])
	<-(<-began).Done()
	small := c.get(1)
	c.until(func() bool { return c.ended[small] })
}

// TestAClientThatDoesNotAnswerIsGivenUp has grpc-go find out: its pings are for all streams.
func TestAClientThatDoesNotAnswerIsGivenUp(t *testing.T) {
	svc, ended := both()
	svc.watch = func(stream pb.Watch_WatchServer) error {
		_, err := stream.Recv()
		ended <- [2]error{err}
		return err
	}
	c := connect(t, serve(t, config(), svc, grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Second, Timeout: 50 * time.Millisecond})).addr)
	c.open(headers(watchPath), false)
	c.until(func() bool { return c.pongs > 0 }) // its ping
	require.Equal(t, codes.Canceled, status.Code((<-ended)[0]))
	require.ErrorIs(t, c.read(), io.EOF)
}
