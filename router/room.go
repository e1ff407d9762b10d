package router

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// room is where the answer that is made in ctx takes its memory from; nil: it is not bounded.
func room(ctx context.Context) listing.Room {
	if a := admission.AnswerOf(ctx); a != nil {
		return a
	}
	return nil
}

// restart says that an attempt reads all of the answer of ctx again.
func restart(ctx context.Context) { admission.AnswerOf(ctx).Restart() }

// within makes the answer of ctx, and makes it again, in its turn, if it is large and there was no room for it (T10).
func within(ctx context.Context, answer func() error) error {
	return admission.AnswerOf(ctx).Within(answer)
}

// arrived makes room for a reply of another node. A replica of this one did so while it was reading.
func (r *Router) arrived(node shard.NodeID, req *Request, reply *Reply) error {
	if req.Room == nil || node == r.cfg.Self {
		return nil
	}
	n := 0
	switch m := reply.Message.(type) {
	case *pb.RangeResponse:
		for _, kv := range m.Kvs {
			n += listing.PairBytes(kv.Key, kv.Value)
		}
	case *pb.TxnResponse:
		n = proto.Size(m)
	}
	return req.Room.Add(n)
}
