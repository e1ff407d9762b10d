package router

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

func (w *world) write(op *operation, s *modelShard, node shard.NodeID, req *Request) (*Reply, error) {
	if s.leader != node {
		return nil, &shard.NotLeaderError{Shard: req.Shard, Leader: s.leader}
	}
	v := s.now()
	if req.Command.Epoch != v.Descriptor.Epoch || req.Epoch != v.Descriptor.Epoch {
		return nil, &shard.WrongShardError{Shard: req.Shard, Descriptors: []*shard.Descriptor{v.Descriptor}}
	}
	to := shard.Revision(req.Command.Revision)
	switch req.Command.Kind {
	case shardpb.Kind_CLOSE:
		v.Floor = max(v.Floor, to)
		s.append(v)
		return &Reply{Rev: v.Rev, Floor: v.Floor}, nil
	case shardpb.Kind_COMPACT:
		if to <= v.Compacted {
			return nil, shard.ErrCompacted
		}
		v.Compacted, v.Rev = to, max(v.Rev, to, shard.Revision(req.Command.Seen))
		v.Floor = max(v.Floor, v.Rev)
		s.append(v)
		return &Reply{Rev: v.Rev}, nil
	}
	rev := w.mint(v, node)
	if isLeaseKind(req.Command.Kind) {
		return w.writeLease(op, s, rev, req)
	}
	done := written{rev: rev}
	span := v.Descriptor.Span
	var message proto.Message
	switch req.Command.Kind {
	case shardpb.Kind_PUT:
		var put pb.PutRequest
		must(proto.Unmarshal(req.Command.Body, &put))
		attached, err := w.mayAttach(s, put.Lease)
		if err != nil {
			return nil, err
		}
		w.put(span, put.Key, rev, string(put.Value), attached)
		message = &pb.PutResponse{}
	case shardpb.Kind_DELETE_RANGE:
		var del pb.DeleteRangeRequest
		must(proto.Unmarshal(req.Command.Body, &del))
		part := shard.RequestSpan(del.Key, del.RangeEnd)
		if !span.ContainsSpan(part) {
			w.violation("T5: shard %d %v was asked to delete %v", req.Shard, span, part)
		}
		resp := &pb.DeleteRangeResponse{}
		for _, kv := range w.cut(part, v.Rev) {
			w.versions[string(kv.Key)] = append(w.versions[string(kv.Key)], version{rev: rev, deleted: true})
			resp.Deleted++
			if del.PrevKv {
				resp.PrevKvs = append(resp.PrevKvs, kv)
			}
		}
		done.deleted = int(resp.Deleted)
		if op != nil {
			op.writes = append(op.writes, done)
		}
		if resp.Deleted > 0 {
			w.commit(s, v, rev)
		}
		return &Reply{Rev: s.now().Rev, Message: resp}, nil
	case shardpb.Kind_TXN:
		var txn pb.TxnRequest
		must(proto.Unmarshal(req.Command.Body, &txn))
		resp := &pb.TxnResponse{Succeeded: true}
		for _, o := range txn.Success {
			if _, err := w.mayAttach(s, o.GetRequestPut().Lease); err != nil {
				return nil, err
			}
		}
		for _, o := range txn.Success {
			put := o.GetRequestPut()
			attached, err := w.mayAttach(s, put.Lease)
			must(err)
			w.put(span, put.Key, rev, string(put.Value), attached)
			resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}})
		}
		message = resp
	default:
		panic(req.Command.Kind)
	}
	if op != nil {
		op.writes = append(op.writes, done)
	}
	w.commit(s, v, rev)
	return &Reply{Rev: rev, Message: message}, nil
}

// mint is the revision that the leader's next write of a shard gets.
func (w *world) mint(v shard.View, node shard.NodeID) shard.Revision {
	stamp := shard.Tick(time.Since(w.began)/shard.TickUnit) + shard.Tick(w.clock) + 1000 + w.skew[node]
	return shard.NextRevision(v.Floor, stamp, v.Descriptor.Slot)
}

func (w *world) put(span shard.Span, key []byte, rev shard.Revision, value string, lease attachment) {
	if !span.Contains(key) {
		w.violation("T2: %v was asked to put %q", span, key)
	}
	w.versions[string(key)] = append(w.versions[string(key)], version{rev: rev, value: value, lease: lease})
}

func (w *world) commit(s *modelShard, v shard.View, rev shard.Revision) {
	if w.minted[rev] {
		w.violation("R2: revision %d twice", rev)
	}
	w.minted[rev] = true
	v.Rev, v.Floor = rev, rev
	s.append(v)
}

func (w *world) read(s *modelShard, node shard.NodeID, req *Request, rng *rand.Rand) (*Reply, error) {
	i := s.applied[node]
	if !req.Serializable || node == s.leader {
		i = len(s.history) - 1
	} else if i < len(s.history)-1 {
		i += rng.IntN(len(s.history) - max(i, 0))
	}
	if i < 0 {
		return nil, &shard.NoReplicaError{Shard: req.Shard}
	}
	v := s.history[i]
	wrong := func() error {
		return &shard.WrongShardError{Shard: req.Shard, Descriptors: []*shard.Descriptor{v.Descriptor}}
	}
	if v.Descriptor.Epoch != req.Epoch {
		return nil, wrong()
	}
	if v.Floor < req.At {
		if !req.Closed {
			return nil, &shard.NotClosedError{Shard: req.Shard, Floor: v.Floor}
		}
		for ; v.Floor < req.At; v = s.history[i] {
			if i++; i == len(s.history) {
				return nil, fmt.Errorf("waited for the floor: %w", &shard.NotClosedError{Shard: req.Shard, Floor: s.now().Floor})
			}
		}
		if v.Descriptor.Epoch != req.Epoch {
			return nil, wrong()
		}
	}
	s.applied[node] = i
	at := v.Rev
	if req.At != 0 {
		at = req.At
	}
	if at < v.Compacted {
		return nil, shard.ErrCompacted
	}
	reply := &Reply{Rev: v.Rev, Floor: v.Floor, Compacted: v.Compacted}
	within := func(rr *pb.RangeRequest) {
		span := shard.RequestSpan(rr.Key, rr.RangeEnd)
		if !span.Empty() && !v.Descriptor.Span.ContainsSpan(span) {
			w.violation("T5: shard %d %v was asked for %v", req.Shard, v.Descriptor.Span, span)
		}
	}
	switch req.Op {
	case routerpb.Op_OP_PROBE:
	case routerpb.Op_OP_RANGE:
		rr := req.Message.(*pb.RangeRequest)
		within(rr)
		reply.Message = w.expected(rr, at)
	case routerpb.Op_OP_FETCH:
		rr := req.Message.(*pb.RangeRequest)
		within(rr)
		got := w.fetch(shard.RequestSpan(rr.Key, rr.RangeEnd), at, listing.FetchOptions{
			Limit: req.Limit, KeysOnly: rr.KeysOnly, CountOnly: rr.CountOnly, NoCount: req.NoCount, Bytes: req.Bytes,
		})
		reply.Message = &pb.RangeResponse{Kvs: got.KVs, Count: got.Count, More: got.More}
	case routerpb.Op_OP_HASH: // of one key at a time
		rr := req.Message.(*pb.RangeRequest)
		within(rr)
		part := &routerpb.HashPart{}
		for i, kv := range w.fetch(shard.RequestSpan(rr.Key, rr.RangeEnd), at, listing.FetchOptions{}).KVs {
			if i > 0 {
				part.Next = kv.Key
				break
			}
			part.Sum = sumOf(kv)
		}
		reply.Message = part
	case routerpb.Op_OP_TXN:
		resp := &pb.TxnResponse{Succeeded: true}
		for _, o := range req.Message.(*pb.TxnRequest).Success {
			rr := o.GetRequestRange()
			within(rr)
			resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: w.expected(rr, at)}})
		}
		reply.Message = resp
	default:
		if req.forLeader() && s.leader != node {
			return nil, &shard.NotLeaderError{Shard: req.Shard, Leader: s.leader}
		}
		reply.Message = w.readLease(v, req)
	}
	return reply, nil
}

// sumOf stands for the hash of a key.
func sumOf(kv *mvccpb.KeyValue) uint64 {
	h := fnv.New64a()
	h.Write([]byte(kv.String()))
	return h.Sum64()
}
