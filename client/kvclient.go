package client

import (
	"context"
	"errors"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/etcderr"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/txn"
)

// KVClient is etcd's KV service implemented by this client, for clientv3.NewKVFromKVClient. Errors
// are etcd's, so an unknown outcome is a timeout.
func (c *Client) KVClient() pb.KVClient { return kvClient{c} }

type kvClient struct{ client *Client }

// within carries out a request that ends with its context.
func within[Q, R any](ctx context.Context, req Q, start func(context.Context, Q, func(R, error)) router.Call) (R, error) {
	type answer struct {
		resp R
		err  error
	}
	if ctx.Err() != nil {
		var none R
		return none, context.Cause(ctx)
	}
	answers := make(chan answer, 1)
	call := start(ctx, req, func(resp R, err error) { answers <- answer{resp, err} })
	select {
	case a := <-answers:
		return a.resp, a.err
	case <-ctx.Done():
		call.Abandon(context.Cause(ctx))
		a := <-answers
		return a.resp, a.err
	}
}

// told returns the error that etcd's client gets. Once the caller's own context has ended, that is the context's
// error, as if gRPC had waited for a node; for a write it implies nothing about the outcome. A request that a closed
// client has not sent ends like a call on a closed connection.
func (k kvClient) told(ctx context.Context, err error, mapped error) error {
	switch {
	case k.client.isClosed() && !errors.Is(err, shard.ErrUnknownOutcome):
		return status.Error(codes.Canceled, ErrClosed.Error())
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	}
	return mapped
}

// fill completes a header.
func (k kvClient) fill(h *pb.ResponseHeader) { h.ClusterId = k.client.directory.cluster() }

func (k kvClient) Range(ctx context.Context, req *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	if err := txn.CheckRange(req); err != nil {
		return nil, err
	}
	resp, err := within(ctx, req, k.client.router.StartRange)
	if err != nil {
		return nil, k.told(ctx, err, etcderr.Read(ctx, err))
	}
	k.fill(resp.Header)
	return resp, nil
}

func (k kvClient) Put(ctx context.Context, req *pb.PutRequest, _ ...grpc.CallOption) (*pb.PutResponse, error) {
	if err := txn.CheckPut(req); err != nil {
		return nil, err
	}
	resp, err := within(ctx, req, k.client.router.StartPut)
	if err != nil {
		return nil, k.told(ctx, err, etcderr.Write(err))
	}
	k.fill(resp.Header)
	return resp, nil
}

func (k kvClient) DeleteRange(ctx context.Context, req *pb.DeleteRangeRequest, _ ...grpc.CallOption) (*pb.DeleteRangeResponse, error) {
	if err := txn.CheckDeleteRange(req); err != nil {
		return nil, err
	}
	resp, err := within(ctx, req, k.client.router.StartDeleteRange)
	if err != nil {
		return nil, k.told(ctx, err, etcderr.Write(err))
	}
	k.fill(resp.Header)
	return resp, nil
}

func (k kvClient) Txn(ctx context.Context, req *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	if err := txn.CheckTxn(req, txn.DefaultMaxOps); err != nil {
		return nil, err
	}
	resp, err := within(ctx, req, k.client.router.StartTxn)
	if err != nil {
		return nil, k.told(ctx, err, etcderr.Write(err))
	}
	k.fill(resp.Header)
	return resp, nil
}

// Compact goes to one node, which informs the whole cluster.
func (k kvClient) Compact(ctx context.Context, req *pb.CompactionRequest, opts ...grpc.CallOption) (*pb.CompactionResponse, error) {
	node, err := k.client.anyNode(ctx, nil)
	if err != nil {
		return nil, k.told(ctx, err, etcderr.Write(err))
	}
	return pb.NewKVClient(node.Conn()).Compact(ctx, req, opts...)
}

func (k kvClient) RangeStream(ctx context.Context, req *pb.RangeRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.RangeStreamResponse], error) {
	if req.SortOrder != pb.RangeRequest_NONE || req.MinModRevision|req.MaxModRevision|req.MinCreateRevision|req.MaxCreateRevision != 0 {
		return nil, status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders and revision filters")
	}
	if err := txn.CheckRange(req); err != nil {
		return nil, err
	}
	s := &rangeStream{kv: k, ctx: ctx, chunks: make(chan *pb.RangeResponse), ended: make(chan struct{})}
	if !k.client.spawn(func() {
		defer close(s.ended)
		s.err = k.client.router.RangeStream(ctx, req, func(chunk *pb.RangeResponse) error {
			if chunk.Header != nil {
				k.fill(chunk.Header)
			}
			select {
			case s.chunks <- chunk:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-k.client.closed:
				return closedError{}
			}
		})
	}) {
		return nil, k.told(ctx, closedError{}, nil)
	}
	return s, nil
}

// rangeStream is a local stream of chunks.
type rangeStream struct {
	kv     kvClient
	ctx    context.Context
	chunks chan *pb.RangeResponse
	ended  chan struct{}
	err    error // why; set before ended is closed
}

// Recv implements grpc.ServerStreamingClient.
func (s *rangeStream) Recv() (*pb.RangeStreamResponse, error) {
	select {
	case chunk := <-s.chunks:
		return &pb.RangeStreamResponse{RangeResponse: chunk}, nil
	case <-s.ended:
		if s.err == nil {
			return nil, io.EOF
		}
		return nil, s.kv.told(s.ctx, s.err, etcderr.Read(s.ctx, s.err))
	}
}

// Context implements grpc.ClientStream, as do the following methods.
func (s *rangeStream) Context() context.Context { return s.ctx }

func (s *rangeStream) Header() (metadata.MD, error) { return nil, nil }
func (s *rangeStream) Trailer() metadata.MD         { return nil }
func (s *rangeStream) CloseSend() error             { return nil }

func (s *rangeStream) SendMsg(any) error { return errOneWay() }
func (s *rangeStream) RecvMsg(any) error { return errOneWay() }

func errOneWay() error { return status.Error(codes.Unimplemented, "use Recv") }
