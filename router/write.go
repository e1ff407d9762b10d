package router

import (
	"context"
	"errors"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
	"github.com/flotilla-kv/flotilla/txn"
)

// Put writes one key. The request has been validated.
func (r *Router) Put(ctx context.Context, req *pb.PutRequest) (*pb.PutResponse, error) {
	turn, err := r.turn(ctx, req.Key)
	if err != nil {
		return nil, err
	}
	resp, err := r.putAdmitted(ctx, req)
	turn.Leave(err)
	return resp, err
}

// putAdmitted is Put after admission.
func (r *Router) putAdmitted(ctx context.Context, req *pb.PutRequest) (*pb.PutResponse, error) {
	reply, err := r.writeAdmitted(ctx, req.Key, putCommand(req))
	if err != nil {
		return nil, err
	}
	return putResponse(reply), nil
}

// DeleteRange deletes the span shard by shard, in key order, each atomically. An
// error that comes after some shards have deleted their part wraps
// shard.ErrUnknownOutcome, whatever ended the rest.
func (r *Router) DeleteRange(ctx context.Context, req *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	span := shard.RequestSpan(req.Key, req.RangeEnd)
	if span.Empty() {
		// The span is empty; the answer still has a shard's revision.
		rev, err := r.Latest(ctx, []shard.Span{shard.PointSpan(req.Key)})
		if err != nil {
			return nil, err
		}
		return &pb.DeleteRangeResponse{Header: header(rev)}, nil
	}
	total := &pb.DeleteRangeResponse{}
	var rev shard.Revision
	next := span
	for {
		part, end, err := r.deletePart(ctx, req, next, total.Deleted > 0)
		if err != nil {
			if total.Deleted > 0 && !errors.Is(err, shard.ErrUnknownOutcome) {
				err = fmt.Errorf("%d keys up to %.64q were deleted, the rest was not: %w: %w", total.Deleted, next.Start, shard.ErrUnknownOutcome, err)
			}
			return nil, err
		}
		total.Deleted += part.Deleted
		total.PrevKvs = append(total.PrevKvs, part.PrevKvs...)
		rev = max(rev, shard.Revision(part.Header.Revision))
		if end == nil {
			total.Header = header(rev)
			return total, nil
		}
		next.Start = end
	}
}

// deletePart deletes the part of the span that the shard at its start owns. It returns where the
// next part starts, nil when there is none. begun says that keys of another part were deleted.
func (r *Router) deletePart(ctx context.Context, req *pb.DeleteRangeRequest, span shard.Span, begun bool) (*pb.DeleteRangeResponse, []byte, error) {
	turn, err := r.turn(ctx, span.Start)
	if err != nil {
		return nil, nil, err
	}
	var resp *pb.DeleteRangeResponse
	var end []byte
	err = r.retrying(ctx, func(n int) error {
		p, err := r.cfg.Cache.Lookup(ctx, span.Start)
		if err != nil {
			return err
		}
		part := span.Intersect(p.Span)
		cmd, err := command(shardpb.Kind_DELETE_RANGE, clipDelete(req, span, part), false)
		if err != nil {
			return err
		}
		cmd.Begun = begun
		reply, err := r.writeTo(ctx, p, n, cmd)
		if err != nil {
			return err
		}
		resp = deleteResponse(reply)
		end = after(span, p.Span)
		return nil
	})
	turn.Leave(err)
	return resp, end, err
}

func clipDelete(req *pb.DeleteRangeRequest, whole, part shard.Span) *pb.DeleteRangeRequest {
	if part.Equal(whole) && slices.Equal(req.Key, whole.Start) {
		return req
	}
	return &pb.DeleteRangeRequest{Key: part.Start, RangeEnd: rangeEnd(part), PrevKv: req.PrevKv}
}

// rangeEnd is the etcd range_end of a span that is not a single key.
func rangeEnd(s shard.Span) []byte {
	if len(s.End) == 0 {
		return []byte{0}
	}
	return s.End
}

// Txn runs a transaction whose keys all lie in one shard; any other is refused with
// *txn.CrossShardError and nothing is applied. The request has been validated.
func (r *Router) Txn(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	foot := txn.FootprintTxn(req)
	if txn.IsReadOnly(req) {
		return r.readTxn(ctx, req, foot)
	}
	turn, err := r.turn(ctx, first(foot))
	if err != nil {
		return nil, err
	}
	resp, err := r.txnAdmitted(ctx, req)
	turn.Leave(err)
	return resp, err
}

// txnAdmitted is Txn of a transaction that writes, after admission.
func (r *Router) txnAdmitted(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	cmd, err := command(shardpb.Kind_TXN, req, txn.Grows(req))
	if err != nil {
		return nil, err
	}
	reply, err := r.writeTxn(ctx, req, txn.FootprintTxn(req), cmd)
	if err != nil {
		return nil, err
	}
	return txnResponse(reply), nil
}

func (r *Router) writeTxn(ctx context.Context, req *pb.TxnRequest, foot txn.Footprint, cmd Request) (*Reply, error) {
	if p, ok := r.cfg.Cache.find(first(foot)); ok && foot.Within(p.Span) && txn.HighestReadRevision(req) == 0 {
		if reply, err, done := r.tryLeader(ctx, p, cmd); done {
			return reply, err
		}
	}
	return r.atHome(ctx, req, foot, func(ctx context.Context, p Place, n int) (*Reply, error) {
		return r.writeTo(ctx, p, n, cmd)
	})
}

func (r *Router) readTxn(ctx context.Context, req *pb.TxnRequest, foot txn.Footprint) (*pb.TxnResponse, error) {
	var reply *Reply
	err := within(ctx, func() (err error) {
		reply, err = r.atHome(ctx, req, foot, func(ctx context.Context, p Place, n int) (*Reply, error) {
			restart(ctx)
			ask := func(serializable bool) (*Reply, error) {
				return r.send(ctx, p, r.reader(p, n), &Request{
					Op: routerpb.Op_OP_TXN, Message: req, Serializable: serializable, Room: room(ctx),
				})
			}
			serializable := txn.IsSerializable(req)
			reply, err := ask(serializable)
			if serializable && errors.Is(err, shard.ErrFutureRevision) {
				// The replica that was asked may only be behind. After a barrier it knows.
				return ask(false)
			}
			return reply, err
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return txnResponse(reply), nil
}

// atHome sends the transaction to its shard, retrying as far as is safe, once the shard is closed
// to the revisions that the transaction reads at.
func (r *Router) atHome(ctx context.Context, req *pb.TxnRequest, foot txn.Footprint, ask func(ctx context.Context, p Place, n int) (*Reply, error)) (*Reply, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var reply *Reply
	err := r.retrying(ctx, func(n int) error {
		p, err := r.home(ctx, foot)
		if err != nil {
			return err
		}
		if err := r.closeForReads(ctx, p, req); err != nil {
			return err
		}
		reply, err = ask(ctx, p, n)
		return err
	})
	return reply, err
}

// home returns the one shard that owns every key of a transaction. A transaction that touches no
// key can be answered by any shard.
func (r *Router) home(ctx context.Context, foot txn.Footprint) (Place, error) {
	p, err := r.cfg.Cache.Lookup(ctx, first(foot))
	if err != nil {
		return Place{}, err
	}
	if !foot.Within(p.Span) {
		return Place{}, r.crossShard(ctx, foot)
	}
	return p, nil
}

// first is the first key of a footprint.
func first(foot txn.Footprint) []byte {
	for span := range foot.Spans() {
		return span.Start
	}
	return nil
}

// crossShard names the shards of a transaction's keys.
func (r *Router) crossShard(ctx context.Context, foot txn.Footprint) error {
	refusal := &txn.CrossShardError{}
	shards := make(map[shard.ID]bool)
	for span := range foot.Spans() {
		places, err := r.cfg.Cache.Cover(ctx, span)
		if err != nil {
			return err
		}
		// The map may be stale, and a refusal is final: let the shards confirm it (T2).
		if _, err := r.probe(ctx, places, false); err != nil {
			return err
		}
		where := txn.Place{Span: span}
		for _, p := range places {
			where.Shards = append(where.Shards, p.ID)
			shards[p.ID] = true
		}
		refusal.Places = append(refusal.Places, where)
	}
	if len(shards) == 1 { // they were merged, and another request has learned of it meanwhile
		return fmt.Errorf("find the shard of a transaction: %w", errMapChanged)
	}
	return refusal
}

// closeForReads closes the shard to the explicit revisions that a transaction reads at, so that an
// idle shard does not reject another shard's revision as a future one.
func (r *Router) closeForReads(ctx context.Context, p Place, req *pb.TxnRequest) error {
	at := txn.HighestReadRevision(req)
	if at == 0 {
		return nil
	}
	err := r.minted(ctx, shard.Revision(at))
	if errors.Is(err, shard.ErrFutureRevision) {
		// Left for the shard to refuse, which knows whether the branch with that read is taken.
		return nil
	}
	if err != nil {
		return err
	}
	return r.closer.reach(ctx, p, shard.Revision(at))
}

// Compact makes history below the revision unreadable in every shard. A physical compaction also
// waits until this node's replicas have collected it, for as long as its caller waits.
func (r *Router) Compact(ctx context.Context, req *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	resp, err := r.compact(ctx, req)
	if err != nil || !req.Physical {
		return resp, err
	}
	if err := r.cfg.Compactions.AwaitCollected(ctx, shard.Revision(req.Revision)); err != nil {
		// The compaction stands, and its garbage will be collected.
		return nil, r.final(ctx, fmt.Errorf("compact at %d: %w: %w", req.Revision, shard.ErrUnknownOutcome, err))
	}
	return resp, nil
}

func (r *Router) compact(ctx context.Context, req *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	rev := shard.Revision(req.Revision)
	if rev <= 0 {
		// Nothing is that old. etcd accepts 0, once, on a store that was never compacted.
		if compacted := r.cfg.Compactions.Compacted(); rev < 0 || compacted > 0 {
			return nil, fmt.Errorf("compact at %d, compacted at %d: %w", rev, compacted, shard.ErrCompacted)
		}
		return &pb.CompactionResponse{Header: header(max(r.cfg.Revisions.Seen(), shard.FirstRevision))}, nil
	}
	if err := r.minted(ctx, rev); err != nil {
		return nil, err
	}
	if err := r.cfg.Compactions.RecordCompaction(ctx, rev); err != nil {
		if !errors.Is(err, shard.ErrUnknownOutcome) && ambiguous(err) {
			err = fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, err)
		}
		return nil, fmt.Errorf("record compaction at %d: %w", rev, err)
	}
	if err := r.compactAll(ctx, rev); err != nil {
		// The compaction is recorded: every shard's leader will tell it.
		return nil, r.final(ctx, fmt.Errorf("compact at %d: %w: %w", rev, shard.ErrUnknownOutcome, err))
	}
	return &pb.CompactionResponse{Header: header(r.cfg.Revisions.Seen())}, nil
}

// compactAll tells every shard.
func (r *Router) compactAll(ctx context.Context, rev shard.Revision) error {
	seen := r.cfg.Compactions.Renewal() // once: reads of several shards need not close them if all have the same
	return r.everywhere(ctx, []shard.Span{shard.Everything()}, func(p Place, n int, _ shard.Span) error {
		req := mark(shardpb.Kind_COMPACT, rev)
		req.Command.Seen = int64(seen)
		_, err := r.sendCommand(ctx, p, n, req)
		if errors.Is(err, shard.ErrCompacted) {
			return nil // its own leader, or this router, has told it already
		}
		return again(err)
	})
}

func putResponse(reply *Reply) *pb.PutResponse {
	if reply.Message == nil {
		p := &struct { // one piece of memory
			resp   pb.PutResponse
			header pb.ResponseHeader
		}{}
		p.resp.Header, p.header.Revision = &p.header, int64(reply.Rev)
		return &p.resp
	}
	resp := reply.Message.(*pb.PutResponse)
	resp.Header = header(reply.Rev)
	return resp
}

func deleteResponse(reply *Reply) *pb.DeleteRangeResponse {
	resp := reply.Message.(*pb.DeleteRangeResponse)
	resp.Header = header(reply.Rev)
	return resp
}

func txnResponse(reply *Reply) *pb.TxnResponse {
	resp := reply.Message.(*pb.TxnResponse)
	resp.Header = header(reply.Rev)
	return resp
}

func header(rev shard.Revision) *pb.ResponseHeader {
	return &pb.ResponseHeader{Revision: int64(rev)}
}
