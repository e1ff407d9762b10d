package etcdapi

import (
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"

	"github.com/flotilla-kv/flotilla/internal/rpcfront"
	"github.com/flotilla-kv/flotilla/router/admission"
)

// stalling is a connection of which nothing is read while it is stalled.
type stalling struct {
	net.Conn
	stalled *atomic.Bool
	resume  chan struct{}
	once    *sync.Once
}

// flow has it read again.
func (s stalling) flow() {
	s.stalled.Store(false)
	s.once.Do(func() { close(s.resume) })
}

// Close implements net.Conn. Whoever reads learns of it.
func (s stalling) Close() error {
	err := s.Conn.Close()
	s.flow()
	return err
}

func (s stalling) Read(p []byte) (int, error) {
	if s.stalled.Load() {
		<-s.resume
	}
	return s.Conn.Read(p)
}

// E8: an answer that is not small holds its room for as long as its client does not read it, whichever of the two
// servers answers, and no longer than the client is there.
func TestAnswersAreHeldUntilTheyAreTaken(t *testing.T) {
	const size = 1 << 20
	key := &pb.RangeRequest{Key: []byte("k")}
	requests := map[string]func(context.Context, pb.KVClient) error{
		"a get": func(ctx context.Context, kv pb.KVClient) error {
			_, err := kv.Range(ctx, key)
			return err
		},
		"a range": func(ctx context.Context, kv pb.KVClient) error {
			_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
			return err
		},
		"a transaction": func(ctx context.Context, kv pb.KVClient) error {
			_, err := kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: key}}}})
			return err
		},
		"a range answered by grpc-go": func(ctx context.Context, kv pb.KVClient) error {
			_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), RangeEnd: append([]byte("l"), make([]byte, 40<<10)...)}) // in several frames
			return err
		},
	}
	for name, request := range requests {
		for _, ending := range []string{"it reads", "it leaves", "it is disconnected", "it gives up"} {
			if name == "a get" && ending == "it is disconnected" {
				continue // nobody here learns of its connection
			}
			t.Run(name+", "+ending, func(t *testing.T) {
				answers := admission.NewAnswers(nil, admission.AnswerBounds{Gets: 64 << 20, Pages: 64 << 20, Lists: 64 << 20, Writes: 64 << 20})
				f := newFaceOf(t, Config{Answers: answers})
				noise := make([]byte, size) // that does not compress
				for i, x := 0, uint32(1); i < len(noise); i++ {
					x = x*1664525 + 1013904223
					noise[i] = byte(x >> 24)
				}
				_, err := f.client.Put(t.Context(), "k", string(noise))
				require.NoError(t, err)
				require.Zero(t, answers.Bytes())

				conn := stalling{stalled: new(atomic.Bool), resume: make(chan struct{}), once: new(sync.Once)}
				c, err := grpc.NewClient("passthrough:///"+f.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10),
					grpc.WithContextDialer(func(ctx context.Context, addr string) (_ net.Conn, err error) {
						conn.Conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
						return conn, err
					}))
				require.NoError(t, err)
				defer func() { require.NoError(t, c.Close()) }()
				kv := pb.NewKVClient(c)
				_, err = kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("none")})
				require.NoError(t, err)

				conn.stalled.Store(true)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan error, 1)
				go func() { ended <- request(ctx, kv) }()
				require.Eventually(t, func() bool { return answers.Bytes() >= size }, 10*time.Second, time.Millisecond)
				switch ending {
				case "it reads":
					conn.flow()
					require.NoError(t, <-ended)
				case "it leaves":
					require.NoError(t, conn.Conn.Close())
				case "it is disconnected":
					_, hangup := rpcfront.Client(f.kv.context())
					hangup()
				case "it gives up":
					cancel()
					require.Error(t, <-ended)
				}
				require.Eventually(t, func() bool {
					if ending == "it gives up" {
						runtime.GC() // finds what grpc-go drops without a word
					}
					return answers.Bytes() == 0
				}, 10*time.Second, time.Millisecond)
				conn.flow()
			})
		}
	}
}

// E8: answers that nobody sends or returns, as grpc-go does when their call is cancelled at the wrong moment, return their room
// with their memory. A few may stay for as long as grpc-go refers to objects that it has put back into its pools, and uses again.
func TestAnswersThatAreDroppedReturnTheirRoom(t *testing.T) {
	const size, number = 256 << 10, 32
	answers := admission.NewAnswers(nil, admission.AnswerBounds{Lists: 64 << 20})
	s := &Server{cfg: Config{Answers: answers}}
	drop := func() {
		sent := make([]mem.BufferSlice, number)
		for i := range sent {
			a := s.answerTo(t.Context(), admission.Read, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
			assert.NoError(t, a.Add(size))
			resp := &pb.RangeResponse{Header: &pb.ResponseHeader{}, Kvs: []*mvccpb.KeyValue{{Key: []byte("k"), Value: make([]byte, size)}}}
			var err error
			sent[i], err = s.hold(t.Context(), a, resp).(*heldAnswer).marshal(codec{})
			assert.NoError(t, err)
		}
		runtime.GC()
		assert.GreaterOrEqual(t, answers.Bytes(), int64(number*size), "they may still be sent")
		runtime.KeepAlive(sent)
	}
	var dropped sync.WaitGroup
	dropped.Go(drop) // nothing of it stays on this test's stack
	dropped.Wait()
	require.Eventually(t, func() bool {
		runtime.GC()
		return answers.Bytes() < number*size/2
	}, 10*time.Second, 10*time.Millisecond)
}

// E8: the gateway's client holds the room of its answer, and of the JSON, until it has taken it or is gone.
func TestTheGatewaysAnswersAreHeld(t *testing.T) {
	const size = 4 << 20
	for _, ending := range []string{"it reads", "it leaves"} {
		t.Run(ending, func(t *testing.T) {
			answers := admission.NewAnswers(nil, admission.AnswerBounds{Lists: 64 << 20})
			f := newFaceOf(t, Config{Answers: answers})
			value := strings.Repeat("v", 1<<20)
			for _, key := range []string{"k1", "k2", "k3", "k4"} {
				_, err := f.client.Put(t.Context(), key, value)
				require.NoError(t, err)
			}
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", f.addr)
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(64<<10))
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+f.addr+"/v3/kv/range", strings.NewReader(`{"key":"aw==","range_end":"bA=="}`))
			require.NoError(t, err)
			req.Header.Set("Grpc-Metadata-"+webCallKey, "another's")
			require.NoError(t, req.Write(conn))
			_, err = conn.Read(make([]byte, 1)) // the answer is being sent
			require.NoError(t, err)
			require.GreaterOrEqual(t, answers.Bytes(), int64(webBytes*size))
			if ending == "it leaves" {
				require.NoError(t, conn.Close())
			} else {
				go func() { _, _ = io.Copy(io.Discard, conn) }()
			}
			require.Eventually(t, func() bool { return answers.Bytes() == 0 }, 10*time.Second, time.Millisecond)
		})
	}
}
