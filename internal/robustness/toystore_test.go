package robustness_test

import (
	"slices"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/internal/robustness"
	"github.com/flotilla-kv/flotilla/shard"
)

// toyStore is the smallest store that keeps flotilla's promises: shards with floors
// and sparse revisions behind one lock, in memory. It exists to be broken: each bug is
// one of the ways in which a real store could go wrong.
type toyStore struct {
	bug string

	mu     sync.Mutex
	ticks  shard.Tick
	writes int
	shards [robustness.ShardCount]toyShard
	// log has every change, in the order of their making.
	log []toyChange
	// changed is closed at every change, and made anew.
	changed chan struct{}
	leases  map[int64]*toyLease
}

type toyShard struct {
	rev, floor shard.Revision
	keys       map[string][]toyVersion // oldest first
}

// toyVersion is what a key was from a revision on; a nil kv is a deletion.
type toyVersion struct {
	rev shard.Revision
	kv  *mvccpb.KeyValue
}

// bugEvery is how rarely a bug strikes, in writes.
const bugEvery = 20

// clockSkew is by how much each node's clock is behind that of the one before it.
const clockSkew = 400

func newToyStore(bug string) *toyStore {
	s := &toyStore{bug: bug, ticks: 10 * clockSkew, changed: make(chan struct{}), leases: make(map[int64]*toyLease)}
	for i := range s.shards {
		s.shards[i] = toyShard{rev: shard.FirstRevision, floor: shard.FirstRevision, keys: make(map[string][]toyVersion)}
	}
	return s
}

func (s *toyStore) shardOf(key []byte) *toyShard {
	if len(key) == 0 {
		return &s.shards[0]
	}
	return &s.shards[int(key[0])*robustness.ShardCount/256]
}

// overlapping returns the shards of a span.
func (s *toyStore) overlapping(span shard.Span) []*toyShard {
	var out []*toyShard
	for i := range s.shards {
		own := shard.Span{Start: []byte{byte(i * 256 / robustness.ShardCount)}}
		if i < robustness.ShardCount-1 {
			own.End = []byte{byte((i + 1) * 256 / robustness.ShardCount)}
		}
		if i == 0 {
			own.Start = nil
		}
		if own.Overlaps(span) {
			out = append(out, &s.shards[i])
		}
	}
	return out
}

// read answers a range request. It needs s.mu.
func (s *toyStore) read(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	span := shard.RequestSpan(r.Key, r.RangeEnd)
	shards := s.overlapping(span)
	var top shard.Revision
	for _, sh := range shards {
		top = max(top, sh.rev)
	}
	at := top
	if r.Revision > 0 {
		if at = shard.Revision(r.Revision); at > s.newest() {
			return nil, rpctypes.ErrGRPCFutureRev
		}
	}
	if s.bug == "torn cut" && len(shards) > 1 {
		// Every shard answers for itself; nobody is closed.
	} else if len(shards) > 1 || r.Revision > 0 {
		for _, sh := range shards {
			sh.floor = max(sh.floor, at)
		}
	}
	if s.bug == "stale read" && s.ticks%bugEvery == 0 {
		at-- // misses the last write, and says so to nobody
	}
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: int64(top)}}
	for _, sh := range shards {
		for key, versions := range sh.keys {
			if kv := toyAt(versions, at); kv != nil && span.Contains([]byte(key)) {
				resp.Kvs = append(resp.Kvs, kv)
			}
		}
	}
	slices.SortFunc(resp.Kvs, func(a, b *mvccpb.KeyValue) int { return slices.Compare(a.Key, b.Key) })
	resp.Count = int64(len(resp.Kvs))
	return resp, nil
}

func (s *toyStore) newest() shard.Revision {
	var top shard.Revision
	for i := range s.shards {
		top = max(top, s.shards[i].rev)
	}
	return top
}

func toyAt(versions []toyVersion, at shard.Revision) *mvccpb.KeyValue {
	for _, v := range slices.Backward(versions) {
		if v.rev <= at {
			return v.kv
		}
	}
	return nil
}

// write runs the actions of a transaction at one revision, stamped by a node's clock.
// It needs s.mu.
func (s *toyStore) write(ops []*pb.RequestOp, stamp shard.Tick) (shard.Revision, []*pb.ResponseOp, error) {
	sh := s.shardOf(opKey(ops[0]))
	rev := s.mint(sh, stamp)
	var out []*pb.ResponseOp
	wrote := false
	if !s.leasesLive(ops) {
		return 0, nil, rpctypes.ErrGRPCLeaseNotFound
	}
	for i, op := range ops {
		switch r := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			resp, err := s.read(r.RequestRange)
			if err != nil {
				return 0, nil, err
			}
			out = append(out, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: resp}})
		case *pb.RequestOp_RequestPut:
			wrote = true
			if s.bug != "half a batch" || i == 0 || s.writes%2 == 0 {
				s.put(sh, r.RequestPut, rev)
			}
			out = append(out, &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}})
		case *pb.RequestOp_RequestDeleteRange:
			n := s.del(sh, r.RequestDeleteRange.Key, rev)
			wrote = wrote || n > 0
			out = append(out, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &pb.DeleteRangeResponse{Deleted: n}}})
		}
	}
	if !wrote {
		return sh.rev, out, nil
	}
	s.writes++
	sh.rev, sh.floor = rev, max(sh.floor, rev)
	return rev, out, nil
}

func (s *toyStore) mint(sh *toyShard, stamp shard.Tick) shard.Revision {
	slot := shard.Slot(0)
	for i := range s.shards {
		if &s.shards[i] == sh && s.bug != "shared slots" {
			slot = shard.Slot(i)
		}
	}
	return shard.NextRevision(sh.floor, stamp, slot)
}

func (s *toyStore) put(sh *toyShard, r *pb.PutRequest, rev shard.Revision) {
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, CreateRevision: int64(rev), ModRevision: int64(rev), Version: 1, Lease: r.Lease}
	versions := sh.keys[string(r.Key)]
	was := toyAt(versions, sh.rev)
	if was != nil {
		kv.CreateRevision, kv.Version = was.CreateRevision, was.Version+1
	}
	sh.keys[string(r.Key)] = append(versions, toyVersion{rev, kv})
	s.logChange(rev, &mvccpb.Event{Type: mvccpb.PUT, Kv: kv, PrevKv: was})
}

func (s *toyStore) del(sh *toyShard, key []byte, rev shard.Revision) int64 {
	versions := sh.keys[string(key)]
	was := toyAt(versions, sh.rev)
	if was == nil {
		return 0
	}
	sh.keys[string(key)] = append(versions, toyVersion{rev, nil})
	s.logChange(rev, &mvccpb.Event{Type: mvccpb.DELETE, Kv: &mvccpb.KeyValue{Key: key, ModRevision: int64(rev)}, PrevKv: was})
	return 1
}

func opKey(op *pb.RequestOp) []byte {
	switch r := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		return r.RequestRange.Key
	case *pb.RequestOp_RequestPut:
		return r.RequestPut.Key
	default:
		return op.GetRequestDeleteRange().Key
	}
}

// txn runs a transaction as one node of the cluster would, bug included.
func (s *toyStore) txn(node int, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ticks++
	s.expire()
	branch, succeeded := r.Success, true
	for _, c := range r.Compare {
		kv := toyAt(s.shardOf(c.Key).keys[string(c.Key)], s.shardOf(c.Key).rev)
		succeeded = succeeded && kv.GetModRevision() == c.GetModRevision()
	}
	if !succeeded {
		branch = r.Failure
	}
	stamp := s.ticks - shard.Tick(node*clockSkew)
	strikes := s.writes%bugEvery == bugEvery-1
	sh := s.shardOf(opKey(branch[0]))
	if s.bug == "lost write" && strikes && len(branch) == 1 && branch[0].GetRequestPut() != nil {
		s.writes++ // acknowledged, and forgotten
		sh.rev = s.mint(sh, stamp)
		sh.floor = sh.rev
		return toyTxnResponse(sh.rev, succeeded, []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}}}), nil
	}
	rev, out, err := s.write(branch, stamp)
	if err != nil {
		return nil, err
	}
	switch {
	case s.bug == "double apply" && strikes:
		if _, _, err := s.write(branch, stamp); err != nil {
			return nil, err
		}
	case s.bug == "refused but applied" && strikes:
		return nil, rpctypes.ErrGRPCRequestTooManyRequests
	}
	return toyTxnResponse(rev, succeeded, out), nil
}

func toyTxnResponse(rev shard.Revision, succeeded bool, out []*pb.ResponseOp) *pb.TxnResponse {
	return &pb.TxnResponse{Header: &pb.ResponseHeader{Revision: int64(rev)}, Succeeded: succeeded, Responses: out}
}
