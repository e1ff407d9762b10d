package rpcfront

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// starting carries out the calls whose key begins with "s", one in two at once and the others when their goroutine runs; those
// with an x fail.
func starting(call Call, request []byte) bool {
	req := &pb.RangeRequest{}
	if err := proto.Unmarshal(request, req); err != nil || len(req.Key) == 0 || req.Key[0] != 's' {
		return false
	}
	answer := func() {
		if req.Key[1] == 'x' {
			call.Answer(nil, status.Error(codes.NotFound, string(req.Key)))
			return
		}
		call.Answer(&pb.RangeResponse{Count: req.Limit}, nil)
	}
	if req.Limit%2 == 0 {
		answer()
	} else {
		go answer()
	}
	return true
}

// TestStart mixes calls that are started with those that only a handler answers.
func TestStart(t *testing.T) {
	svc := &service{handle: func(_ context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
		if len(req.Key) > 0 && req.Key[0] == 's' {
			return nil, errors.New("was to be started")
		}
		return &pb.RangeResponse{Count: -req.Limit}, nil
	}}
	cfg := config()
	cfg.Starts = map[string]Start{rangePath: starting}
	kv := pb.NewKVClient(dial(t, serve(t, cfg, svc).addr))
	var wg sync.WaitGroup
	for i := range int64(300) {
		wg.Go(func() {
			for _, kind := range []string{"s", "h", "sx"} {
				key := fmt.Sprint(kind, i)
				resp, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte(key), Limit: i + 1})
				switch kind {
				case "sx":
					require.Equal(t, codes.NotFound, status.Code(err))
					require.Equal(t, key, status.Convert(err).Message())
				case "s":
					require.NoError(t, err)
					require.Equal(t, i+1, resp.Count)
				default:
					require.NoError(t, err)
					require.Equal(t, -i-1, resp.Count)
				}
			}
		})
	}
	wg.Wait()
}

// TestStopWaitsForStarted is F7 for calls that no goroutine carries out, and F5: their contexts end all the same.
func TestStopWaitsForStarted(t *testing.T) {
	began := make(chan Call, 1)
	cfg := config()
	cfg.Starts = map[string]Start{rangePath: func(call Call, _ []byte) bool {
		began <- call
		return true
	}}
	s := serve(t, cfg, &service{})
	go func() { _, _ = pb.NewKVClient(dial(t, s.addr)).Range(context.Background(), &pb.RangeRequest{}) }()
	call := <-began
	stopped := make(chan struct{})
	go func() {
		s.stop()
		close(stopped)
	}()
	<-call.Done()
	s.running.Wait() // there is nothing else to wait for
	for range 1000 {
		runtime.Gosched()
	}
	select {
	case <-stopped:
		t.Fatal("Stop has returned before the call was answered")
	default:
	}
	call.Answer(&pb.RangeResponse{}, nil)
	<-stopped
}
