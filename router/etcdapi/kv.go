package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/txn"
)

// kvServer is etcd's KV service.
type kvServer struct {
	pb.UnsafeKVServer // a method that etcd adds must be dealt with here
	*Server
}

func (s *kvServer) Range(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	if err := txn.CheckRange(req); err != nil {
		return nil, err
	}
	resp, err := s.kv.Range(ctx, req)
	if err != nil {
		return nil, readError(ctx, err)
	}
	s.fill(resp.Header)
	return resp, nil
}

func (s *kvServer) RangeStream(req *pb.RangeRequest, stream pb.KV_RangeStreamServer) error {
	if err := checkRangeStream(req); err != nil {
		return err
	}
	place, err := s.cfg.Room.Take(admission.Read, 0)
	if err != nil {
		return readError(stream.Context(), err)
	}
	defer place.Leave()
	if err := s.cfg.Auth.Of(stream.Context()).Read(req.Key, req.RangeEnd); err != nil {
		return err
	}
	a := s.newAnswer(stream.Context(), admission.Part)
	defer a.Leave()
	err = s.kv.RangeStream(admission.With(stream.Context(), a), req, func(part *pb.RangeResponse) error {
		if part.Header != nil {
			s.fill(part.Header)
		}
		a.Finish(a.Used())
		defer a.Leave() // the next part is an answer of its own
		return stream.Send(&pb.RangeStreamResponse{RangeResponse: part})
	})
	return readError(stream.Context(), err)
}

// checkRangeStream refuses, with etcd's texts, requests that need the whole result at once. Clients
// fall back to Range then.
func checkRangeStream(req *pb.RangeRequest) error {
	if err := txn.CheckRange(req); err != nil {
		return err
	}
	// Order NONE is key order here, whatever the target is.
	byKey := req.SortTarget == pb.RangeRequest_KEY && req.SortOrder == pb.RangeRequest_ASCEND
	if req.SortOrder != pb.RangeRequest_NONE && !byKey {
		return status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders")
	}
	if req.MinModRevision != 0 || req.MaxModRevision != 0 || req.MinCreateRevision != 0 || req.MaxCreateRevision != 0 {
		return status.Error(codes.Unimplemented, "RangeStream does not support revision filters")
	}
	return nil
}

func (s *kvServer) Put(ctx context.Context, req *pb.PutRequest) (*pb.PutResponse, error) {
	if err := s.checkPut(req, proto.Size(req)); err != nil {
		return nil, err
	}
	return s.putAnswer(s.kv.Put(ctx, req))
}

// checkPut validates a put whose encoded size is given.
func (s *kvServer) checkPut(req *pb.PutRequest, size int) error {
	if err := txn.CheckPut(req); err != nil {
		return err
	}
	return s.checkSize(size)
}

func (s *kvServer) putAnswer(resp *pb.PutResponse, err error) (*pb.PutResponse, error) {
	if err != nil {
		return nil, writeError(err)
	}
	s.fill(resp.Header)
	return resp, nil
}

func (s *kvServer) DeleteRange(ctx context.Context, req *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	if err := txn.CheckDeleteRange(req); err != nil {
		return nil, err
	}
	if err := s.checkSize(proto.Size(req)); err != nil {
		return nil, err
	}
	resp, err := s.kv.DeleteRange(ctx, req)
	if err != nil {
		return nil, writeError(err)
	}
	s.fill(resp.Header)
	return resp, nil
}

func (s *kvServer) Txn(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	if err := s.checkTxn(req, proto.Size(req)); err != nil {
		return nil, err
	}
	return s.txnAnswer(s.kv.Txn(ctx, req))
}

// checkTxn validates a transaction whose encoded size is given.
func (s *kvServer) checkTxn(req *pb.TxnRequest, size int) error {
	if err := txn.CheckTxn(req, txn.DefaultMaxOps); err != nil || txn.IsReadOnly(req) {
		// A read-only transaction is never logged, so only the limit of messages applies to it.
		return err
	}
	return s.checkSize(size)
}

func (s *kvServer) txnAnswer(resp *pb.TxnResponse, err error) (*pb.TxnResponse, error) {
	if err != nil {
		// clientv3 treats every Txn as a write, even a read-only one.
		return nil, writeError(err)
	}
	s.fill(resp.Header)
	return resp, nil
}

func (s *kvServer) Compact(ctx context.Context, req *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	resp, err := s.kv.Compact(ctx, req)
	if err != nil {
		return nil, writeError(err)
	}
	s.fill(resp.Header)
	return resp, nil
}
