package native_test

import (
	"context"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/native"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/hlc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// served is a stream of one client, without a network.
type served struct {
	grpc.ServerStream
	ctx    context.Context
	end    context.CancelFunc
	frames chan *routerpb.Frame
	done   atomic.Bool // its handler has returned
}

func (s *served) Context() context.Context { return s.ctx }
func (s *served) SendMsg(any) error        { return nil }
func (s *served) RecvMsg(m any) error {
	select {
	case f := <-s.frames:
		data, err := peer.Codec().Marshal(f)
		if err != nil {
			return err
		}
		return peer.Codec().Unmarshal(data, m)
	case <-s.ctx.Done():
		return io.EOF
	}
}

// putWithLease has a stream served, and a put with a lease sent over it.
func putWithLease(t *testing.T, c native.Config) *served {
	c.Revisions, c.Clock = hlc.NewHybrid(clock.System{}), clock.System{}
	s := &served{frames: make(chan *routerpb.Frame, 1)}
	s.ctx, s.end = context.WithCancel(t.Context())
	s.frames <- &routerpb.Frame{Requests: []*routerpb.Request{write(shardpb.Kind_PUT, body(t, &pb.PutRequest{Key: []byte("k"), Lease: 5}))}}
	go func() {
		_ = native.New(c).Exchange(&grpc.GenericServerStream[routerpb.Frame, routerpb.Frame]{ServerStream: s})
		s.done.Store(true)
	}()
	synctest.Wait()
	return s
}

func unregistered() error { return &shard.UnregisteredLeaseError{Shard: 2, Lease: 5, Fence: 1} }

// V6: a stream does not end before what the node's router does for it.
func TestAStreamEndsAfterItsRoutedWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, to := &replicas{}, &routed{wait: make(chan struct{})}
		at.write = func(_ *router.Request, end router.Ender) { end.End(nil, unregistered()) }
		s := putWithLease(t, native.Config{Executor: executing(at), Router: to})
		s.end()
		synctest.Wait()
		require.False(t, s.done.Load(), "the router would be closed under the put")
		close(to.wait)
		synctest.Wait()
		require.True(t, s.done.Load())
	})
}

// V6: what a replica refuses when the stream has ended goes to nobody, and has left the node.
func TestAWriteOutlivesItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, room := &replicas{}, admission.NewRoom(nil, admission.Bounds{})
		var outcome router.Ender
		at.write = func(_ *router.Request, end router.Ender) { outcome = end }
		s := putWithLease(t, native.Config{Executor: executing(at), Router: &routed{wait: make(chan struct{})}, Room: room})
		free := func() (n int) {
			for {
				p, err := room.Take(admission.Write, 0)
				if err != nil {
					return n
				}
				defer p.Leave()
				n++
			}
		}
		held := free()
		s.end()
		synctest.Wait()
		require.True(t, s.done.Load(), "nobody waits for it")
		require.Equal(t, held, free())
		outcome.End(nil, unregistered())
		synctest.Wait() // or the router would have been asked, and wait for ever
		require.Equal(t, held+1, free())
	})
}

// A node that is about to stop waits until its clients have their answers, and for those that send nothing until they
// know that they are to turn elsewhere.
func TestLeaveWaitsForAnswers(t *testing.T) {
	h := serve(t)
	ends := make(chan router.Ender, 1)
	h.replicas.write = func(_ *router.Request, end router.Ender) { ends <- end }
	client := peer.NewNativeClient(h.conn, h.seen, nil)
	defer client.Close()
	errs := make(chan error, 1)
	go func() {
		_, err := client.Send(t.Context(), &router.Request{
			Shard: 2, Op: routerpb.Op_OP_WRITE, Command: &shardpb.Command{Kind: shardpb.Kind_PUT, Epoch: 1, Body: body(t, &pb.PutRequest{Key: []byte("k")})},
		})
		errs <- err
	}()
	end := <-ends
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	h.native.Leave(gone) // in vain
	left := make(chan struct{})
	go func() {
		h.native.Leave(t.Context())
		close(left)
	}()
	select {
	case <-left:
		t.Fatal("a write is under way")
	case <-time.After(20 * time.Millisecond): // long enough for a Leave that does not wait
	}
	end.End(&router.Reply{Rev: 7, Message: &pb.PutResponse{}}, nil)
	require.NoError(t, <-errs)
	<-left
}
