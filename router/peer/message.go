package peer

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

func encodeRequest(out *routerpb.Request, req *router.Request) error {
	out.Shard, out.Epoch, out.Op, out.Command = uint64(req.Shard), req.Epoch, req.Op, req.Command
	out.Serializable, out.At, out.Closed, out.Grows = req.Serializable, int64(req.At), req.Closed, req.Grows
	out.Limit, out.NoCount, out.Promise = req.Limit, req.NoCount, req.Promise
	if req.Message != nil {
		var err error
		if out.Body, err = proto.Marshal(req.Message); err != nil {
			return fmt.Errorf("encode a request to shard %d: %w", req.Shard, err)
		}
	}
	return nil
}

func decodeRequest(in *routerpb.Request) (*router.Request, error) {
	req := &router.Request{
		Shard: shard.ID(in.Shard), Epoch: in.Epoch, Op: in.Op, Command: in.Command,
		Serializable: in.Serializable, At: shard.Revision(in.At), Closed: in.Closed, Limit: in.Limit, NoCount: in.NoCount, Grows: in.Grows, Promise: in.Promise,
	}
	switch in.Op {
	case routerpb.Op_OP_WRITE:
		if in.Command == nil {
			return nil, fmt.Errorf("write to shard %d without a command", in.Shard)
		}
		return req, nil
	case routerpb.Op_OP_RANGE, routerpb.Op_OP_FETCH, routerpb.Op_OP_HASH:
		req.Message = &pb.RangeRequest{}
	case routerpb.Op_OP_TXN:
		req.Message = &pb.TxnRequest{}
	case routerpb.Op_OP_LEASE_KEEPALIVE, routerpb.Op_OP_LEASE_TTL, routerpb.Op_OP_LEASE_KEYS, routerpb.Op_OP_LEASE_LIST:
		req.Message = &routerpb.LeaseQuery{}
	case routerpb.Op_OP_PROBE:
		return req, nil
	default:
		return nil, fmt.Errorf("unknown operation %d", in.Op)
	}
	if err := proto.Unmarshal(in.Body, req.Message); err != nil {
		return nil, fmt.Errorf("decode a request to shard %d: %w", in.Shard, err)
	}
	return req, nil
}

func encodeReply(id uint64, reply *router.Reply, err error) *routerpb.Reply {
	out := &routerpb.Reply{Id: id}
	if err != nil {
		encodeError(out, err)
		return out
	}
	out.Revision, out.Floor, out.Compacted, out.Index = int64(reply.Rev), int64(reply.Floor), int64(reply.Compacted), reply.Index
	if reply.Message != nil {
		if out.Body, err = proto.Marshal(reply.Message); err != nil {
			encodeError(out, fmt.Errorf("encode a reply: %w", err))
		}
		if len(out.Body) > replyBytesMax {
			out = &routerpb.Reply{Id: id}
			encodeError(out, fmt.Errorf("the answer has more than the %d MiB that nodes send each other; ask for less at a time", replyBytesMax>>20))
		}
	}
	return out
}

// replyBytesMax is below what nodes take as one message: a larger one would end the
// stream, and with it everything else under way there.
const replyBytesMax = 60 << 20

// decodeReply needs the request to know what the body is.
func decodeReply(req *router.Request, in *routerpb.Reply) (*router.Reply, error) {
	if err := decodeError(in); err != nil {
		return nil, err
	}
	reply := &router.Reply{Rev: shard.Revision(in.Revision), Floor: shard.Revision(in.Floor), Compacted: shard.Revision(in.Compacted), Index: in.Index}
	switch req.Op {
	case routerpb.Op_OP_RANGE, routerpb.Op_OP_FETCH:
		reply.Message = &pb.RangeResponse{}
	case routerpb.Op_OP_HASH:
		reply.Message = &routerpb.HashPart{}
	case routerpb.Op_OP_TXN:
		reply.Message = &pb.TxnResponse{}
	case routerpb.Op_OP_LEASE_KEEPALIVE, routerpb.Op_OP_LEASE_TTL, routerpb.Op_OP_LEASE_KEYS, routerpb.Op_OP_LEASE_LIST:
		reply.Message = &routerpb.LeaseStatus{}
	case routerpb.Op_OP_WRITE:
		switch req.Command.Kind {
		case shardpb.Kind_PUT:
			reply.Message = &pb.PutResponse{}
		case shardpb.Kind_DELETE_RANGE:
			reply.Message = &pb.DeleteRangeResponse{}
		case shardpb.Kind_TXN:
			reply.Message = &pb.TxnResponse{}
		case shardpb.Kind_LEASE_GRANT, shardpb.Kind_LEASE_ATTACH, shardpb.Kind_LEASE_REVOKE, shardpb.Kind_LEASE_FORGET,
			shardpb.Kind_LEASE_REIGN, shardpb.Kind_LEASE_REGISTER, shardpb.Kind_LEASE_DETACH:
			reply.Message = &shardpb.LeaseAnswer{}
		}
	}
	if reply.Message != nil && len(in.Body) > 0 {
		if err := proto.Unmarshal(in.Body, reply.Message); err != nil {
			return nil, fmt.Errorf("decode a reply of shard %d: %w", req.Shard, err)
		}
	}
	return reply, nil
}
