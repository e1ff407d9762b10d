package apply

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// write executes a command that may change keys. The first change takes the revision; a command
// that changes nothing leaves Rev and Floor alone (A5).
func (r *run) write(cmd *shardpb.Command, want bool) (proto.Message, error) {
	stamp := shard.Tick(cmd.Stamp)
	if stamp < 0 || stamp > revisionMax.Tick() {
		return nil, malformed("%s with stamp %d", cmd.Kind, cmd.Stamp)
	}
	if r.knobs.Now != nil {
		stamp = r.knobs.Now()
	}
	slot := r.view.Descriptor.Slot
	if r.knobs.OneSlot {
		slot = 0
	}
	w := writing{run: r, want: want, rev: shard.NextRevision(r.view.Floor, stamp, slot)}
	r.w.Begin(w.rev)
	resp, err := w.request(cmd)
	if err != nil {
		return nil, err // nothing was written (A4), or the store failed
	}
	if w.changed() {
		r.view.Rev, r.view.Floor = w.rev, w.rev
		if err := r.noteAttached(r.w.Changed()); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// writing is one command that may change keys. Its methods return nil for a response that is not
// wanted, and read nothing for it.
type writing struct {
	*run
	rev  shard.Revision // that its changes get
	want bool
}

func (w *writing) changed() bool { return len(w.w.Changed()) > 0 }

// now is the revision that a response reports: the command's own once it has changed something.
func (w *writing) now() shard.Revision {
	if w.changed() {
		return w.rev
	}
	return w.view.Rev
}

// request decodes the body, checks that its keys are ours (A7), and runs it.
func (w *writing) request(cmd *shardpb.Command) (proto.Message, error) {
	d := w.view.Descriptor
	switch cmd.Kind {
	case shardpb.Kind_PUT:
		req := &w.asked
		if err := decodePut(cmd, req); err != nil {
			return nil, err
		}
		if !w.owns(holds(d.Span, req.Key, nil)) {
			return nil, wrongShard(w.id, w.view)
		}
		if err := w.judge().put(req); err != nil {
			return nil, err
		}
		return w.put(req)
	case shardpb.Kind_DELETE_RANGE:
		var req pb.DeleteRangeRequest
		if err := decode(cmd, &req); err != nil {
			return nil, err
		}
		if !w.owns(holds(d.Span, req.Key, req.RangeEnd)) {
			return nil, wrongShard(w.id, w.view)
		}
		return w.deleteRange(&req)
	case shardpb.Kind_TXN:
		var req pb.TxnRequest
		if err := decodeTxn(cmd, &req); err != nil {
			return nil, err
		}
		if !w.owns(holdsTxn(d.Span, &req)) {
			return nil, wrongShard(w.id, w.view)
		}
		p, err := w.judge().plan(&req)
		if err != nil {
			return nil, err
		}
		if err := p.checkRepeats(); err != nil {
			return nil, err
		}
		return w.txn(p)
	default: // the caller lets nothing else through
		return w.lease(cmd)
	}
}

// owns reports whether all keys are the shard's, unless a knob overrides it.
func (w *writing) owns(all bool) bool { return all || w.knobs.AnyEpoch }

// judge validates requests against the state before this command.
func (w *writing) judge() judge { return judge{source: w.w, view: w.view, leases: leases{w.run}} }

// put writes a key. The request has passed judge.put.
func (w *writing) put(req *pb.PutRequest) (*pb.PutResponse, error) {
	prev, err := w.w.Find(req.Key)
	if err != nil {
		return nil, err
	}
	value, lease := req.Value, req.Lease
	var resp *pb.PutResponse
	if w.want {
		resp = &pb.PutResponse{}
	}
	if prev.Exists && (req.IgnoreValue || req.PrevKv && w.want) {
		old, err := w.w.Get(req.Key)
		if err != nil {
			return nil, err
		}
		if req.IgnoreValue {
			value = old.GetValue()
		}
		if req.PrevKv && w.want {
			resp.PrevKv = old
		}
	}
	if req.IgnoreLease {
		lease = prev.Header.Lease
	}
	return resp, w.w.Put(req.Key, value, lease, prev)
}

// deleteRange deletes the existing keys of the range, in key order.
func (w *writing) deleteRange(req *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	withPrev := req.PrevKv && w.want
	if len(req.RangeEnd) == 0 && !withPrev {
		return w.deleteKey(req.Key)
	}
	found, err := w.w.Fetch(shard.RequestSpan(req.Key, req.RangeEnd), 0, listing.FetchOptions{KeysOnly: !withPrev})
	if err != nil {
		return nil, err
	}
	for _, kv := range found.KVs {
		if err := w.w.Delete(kv.Key); err != nil {
			return nil, err
		}
	}
	if !w.want {
		return nil, nil
	}
	resp := &pb.DeleteRangeResponse{Deleted: found.Count}
	if withPrev {
		resp.PrevKvs = found.KVs
	}
	return resp, nil
}

// deleteKey is the common case, for which knowing the header is enough.
func (w *writing) deleteKey(key []byte) (*pb.DeleteRangeResponse, error) {
	_, existed, err := w.w.Header(key)
	if err != nil {
		return nil, err
	}
	var deleted int64
	if existed {
		deleted = 1
		if err := w.w.Delete(key); err != nil {
			return nil, err
		}
	}
	if !w.want {
		return nil, nil
	}
	return &pb.DeleteRangeResponse{Deleted: deleted}, nil
}
