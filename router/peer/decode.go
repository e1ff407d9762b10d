package peer

import (
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/etcdwire"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// parts calls f with each request or reply of a frame, still encoded, and returns the highest
// revision that the frame carries. Unknown fields are skipped.
func parts(frame []byte, f func(field protowire.Number, data []byte) error) (highest shard.Revision, err error) {
	for len(frame) > 0 {
		field, kind, n := protowire.ConsumeTag(frame)
		if n < 0 {
			return 0, errFrame(n)
		}
		frame = frame[n:]
		switch {
		case (field == frameRequests || field == frameReplies) && kind == protowire.BytesType:
			var data []byte
			if data, n = protowire.ConsumeBytes(frame); n >= 0 {
				if err := f(field, data); err != nil {
					return 0, err
				}
			}
		case field == frameRevision && kind == protowire.VarintType:
			var v uint64
			v, n = protowire.ConsumeVarint(frame)
			highest = shard.Revision(v)
		default:
			n = protowire.ConsumeFieldValue(field, kind, frame)
		}
		if n < 0 {
			return 0, errFrame(n)
		}
		frame = frame[n:]
	}
	return highest, nil
}

func errFrame(n int) error { return fmt.Errorf("malformed frame: %w", protowire.ParseError(n)) }

// decodeRequest decodes a request, which aliases data; its command, if it has one, is cmd.
func decodeRequest(data []byte, req *router.Request, cmd *shardpb.Command) (id uint64, err error) {
	var body []byte
	m := etcdwire.Read(data)
	for m.Next() {
		switch {
		case m.ID == 5 && m.Bytes != nil:
			if err := shard.DecodeCommand(m.Bytes, cmd); err != nil {
				return id, fmt.Errorf("decode a command: %w", err)
			}
			req.Command = cmd
		case m.ID == 6 && m.Bytes != nil:
			body = m.Bytes
		case m.Bytes != nil: // of a later version
		case m.ID == 1:
			id = m.Number
		case m.ID == 2:
			req.Shard = shard.ID(m.Number)
		case m.ID == 3:
			req.Epoch = m.Number
		case m.ID == 4:
			req.Op = routerpb.Op(m.Number)
		case m.ID == 7:
			req.Serializable = protowire.DecodeBool(m.Number)
		case m.ID == 8:
			req.At = shard.Revision(m.Number)
		case m.ID == 9:
			req.Limit = int64(m.Number)
		case m.ID == 11:
			req.Closed = protowire.DecodeBool(m.Number)
		case m.ID == 12:
			req.Grows = protowire.DecodeBool(m.Number)
		case m.ID == 13:
			req.NoCount = protowire.DecodeBool(m.Number)
		case m.ID == 14:
			req.Promise = protowire.DecodeBool(m.Number)
		case m.ID == 15:
			req.Relay = shard.NodeID(m.Number)
		case m.ID == 16:
			req.Bytes = int64(m.Number)
		case m.ID == 17:
			req.Begun = protowire.DecodeBool(m.Number)
		}
	}
	if !m.Whole() {
		return id, errors.New("malformed request")
	}
	return id, decodeMessage(body, req)
}

// decodeMessage decodes the request's message.
func decodeMessage(body []byte, req *router.Request) error {
	switch req.Op {
	case routerpb.Op_OP_WRITE:
		if req.Command == nil {
			return fmt.Errorf("write to shard %d without a command", req.Shard)
		}
		return nil
	case routerpb.Op_OP_PROBE:
		return nil
	case routerpb.Op_OP_RANGE:
		if key, ok := etcdwire.GetKey(body); ok {
			req.Message = &pb.RangeRequest{Key: key}
			return nil
		}
		req.Message = &pb.RangeRequest{}
	case routerpb.Op_OP_FETCH, routerpb.Op_OP_HASH:
		req.Message = &pb.RangeRequest{}
	case routerpb.Op_OP_TXN:
		req.Message = &pb.TxnRequest{}
	case routerpb.Op_OP_LEASE_KEEPALIVE, routerpb.Op_OP_LEASE_TTL, routerpb.Op_OP_LEASE_KEYS, routerpb.Op_OP_LEASE_LIST:
		req.Message = &routerpb.LeaseQuery{}
	default:
		return fmt.Errorf("unknown operation %d", req.Op)
	}
	if err := proto.Unmarshal(body, req.Message); err != nil {
		return fmt.Errorf("decode a request to shard %d: %w", req.Shard, err)
	}
	return nil
}

// answered is a received reply, still encoded except for the usual fields.
type answered struct {
	data  []byte
	id    uint64
	reply router.Reply
	body  []byte
	plain bool // there is nothing else in it
}

// decodeAnswered decodes a reply, which aliases data.
func decodeAnswered(data []byte) (answered, error) {
	a := answered{data: data, plain: true}
	m := etcdwire.Read(data)
	for m.Next() {
		switch isBytes := m.Bytes != nil; {
		case m.ID == 7 && isBytes:
			a.body = m.Bytes
		case isBytes:
			a.plain = false
		case m.ID == 1:
			a.id = m.Number
		case m.ID == 4:
			a.reply.Rev = shard.Revision(m.Number)
		case m.ID == 5:
			a.reply.Floor = shard.Revision(m.Number)
		case m.ID == 6:
			a.reply.Compacted = shard.Revision(m.Number)
		case m.ID == 14:
			a.reply.Index = m.Number
		default:
			a.plain = false
		}
	}
	if !m.Whole() {
		return a, errors.New("malformed reply")
	}
	return a, nil
}

// err is the failure that the reply reports, nil if it has an answer.
func (a *answered) err() error {
	if a.plain {
		return nil
	}
	whole := &routerpb.Reply{}
	if err := whole.UnmarshalVT(a.data); err != nil {
		return fmt.Errorf("decode a reply: %w", err)
	}
	return decodeError(whole)
}

// decodeBody returns a reply's message, in memory of its own. It needs the request to know the
// message's type; the result is nil for a put without anything to report.
func decodeBody(req *router.Request, body []byte) (proto.Message, error) {
	if req.Op == routerpb.Op_OP_RANGE {
		if resp, ok := etcdwire.DecodeRange(body); ok {
			return resp, nil
		}
	}
	if len(body) == 0 && (req.Put != nil || req.Command != nil && req.Command.Kind == shardpb.Kind_PUT) {
		return nil, nil
	}
	m := answerTo(req)
	if m != nil {
		if err := proto.Unmarshal(body, m); err != nil {
			return nil, fmt.Errorf("decode a reply of shard %d: %w", req.Shard, err)
		}
	}
	return m, nil
}

// answerTo returns an empty message of the type that answers the request; nil where there is none.
func answerTo(req *router.Request) proto.Message {
	switch req.Op {
	case routerpb.Op_OP_RANGE, routerpb.Op_OP_FETCH:
		return &pb.RangeResponse{}
	case routerpb.Op_OP_HASH:
		return &routerpb.HashPart{}
	case routerpb.Op_OP_TXN:
		return &pb.TxnResponse{}
	case routerpb.Op_OP_LEASE_KEEPALIVE, routerpb.Op_OP_LEASE_TTL, routerpb.Op_OP_LEASE_KEYS, routerpb.Op_OP_LEASE_LIST:
		return &routerpb.LeaseStatus{}
	case routerpb.Op_OP_WRITE:
		if req.Put != nil {
			return &pb.PutResponse{}
		}
		return answerToCommand(req.Command.Kind)
	}
	return nil
}

func answerToCommand(k shardpb.Kind) proto.Message {
	switch k {
	case shardpb.Kind_PUT:
		return &pb.PutResponse{}
	case shardpb.Kind_DELETE_RANGE:
		return &pb.DeleteRangeResponse{}
	case shardpb.Kind_TXN:
		return &pb.TxnResponse{}
	case shardpb.Kind_LEASE_GRANT, shardpb.Kind_LEASE_ATTACH, shardpb.Kind_LEASE_REVOKE, shardpb.Kind_LEASE_FORGET,
		shardpb.Kind_LEASE_REIGN, shardpb.Kind_LEASE_REGISTER, shardpb.Kind_LEASE_DETACH:
		return &shardpb.LeaseAnswer{}
	}
	return nil
}
