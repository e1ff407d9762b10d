package apply

import (
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
)

// Range answers a range request at a revision; 0 means the request's own, and if it names none, the
// latest applied. The response has no header: a caller that must report which revision was read
// passes View().Rev.
//
// Reads are refused with ErrCompacted, ErrFutureRevision (above Floor: not final yet),
// WrongShardError or ErrUnavailable (a snapshot is being installed; try again).
func (m *Machine) Range(req *pb.RangeRequest, at shard.Revision) (*pb.RangeResponse, error) {
	if at == 0 {
		at = shard.Revision(req.GetRevision())
	}
	f, err := m.FetchSpan(requestSpan(req), at, listing.OptionsFor(req))
	if err != nil {
		return nil, err
	}
	return listing.Respond(req, f), nil
}

// GetHeld answers a request for one key at a published view, if its latest version is in memory. It
// reads nothing else, so its result cannot be incomplete; whatever it does not answer, Range does.
func (m *Machine) GetHeld(key []byte, view shard.View) (*pb.RangeResponse, bool) {
	if view.Descriptor == nil || !view.Descriptor.Span.Contains(key) || readable(view.Rev, view) != nil {
		return nil, false
	}
	f, ok := m.rows.Held(key, view.Descriptor.Epoch, view.Rev)
	if !ok {
		return nil, false
	}
	return &pb.RangeResponse{Kvs: f.KVs, Count: f.Count}, true
}

// FetchSpan reads the span's keys at a revision, 0 or less being the latest applied, for a router
// that combines several shards' parts. It is refused like Range.
func (m *Machine) FetchSpan(span shard.Span, at shard.Revision, o listing.FetchOptions) (listing.Fetched, error) {
	s, err := m.snapshot(at)
	if err != nil {
		return listing.Fetched{}, unmarked(err)
	}
	if !span.Empty() && !s.view.Descriptor.Span.ContainsSpan(span) {
		return listing.Fetched{}, s.view.WrongShard(m.id)
	}
	f, err := s.Fetch(span, s.at, o)
	return f, unmarked(err)
}

// HashSpan hashes, in one step of about bytesMax bytes, the span's keys at a revision. It is
// refused like Range.
func (m *Machine) HashSpan(span shard.Span, at shard.Revision, bytesMax int) (mvcc.Hashed, error) {
	s, err := m.snapshot(at)
	if err != nil {
		return mvcc.Hashed{}, unmarked(err)
	}
	if !s.view.Descriptor.Span.ContainsSpan(span) {
		return mvcc.Hashed{}, s.view.WrongShard(m.id)
	}
	h, err := mvcc.Hash(m.stored(), span, s.at, bytesMax)
	if err != nil {
		return mvcc.Hashed{}, fmt.Errorf("read shard %s: %w", m.id, err)
	}
	return h, unmarked(s.stillReadable(s.at))
}

// ReadTxn answers a read-only transaction at one revision, 0 being the latest applied, if there is room for the
// response; room may be nil. The response has no header; those inside it carry the revision. It is refused like Range.
func (m *Machine) ReadTxn(req *pb.TxnRequest, at shard.Revision, room listing.Room) (*pb.TxnResponse, error) {
	resp, err := m.readTxn(req, at, room)
	return resp, unmarked(err)
}

func (m *Machine) readTxn(req *pb.TxnRequest, at shard.Revision, room listing.Room) (*pb.TxnResponse, error) {
	s, err := m.snapshot(at)
	if err != nil {
		return nil, err
	}
	if !holdsTxn(s.view.Descriptor.Span, req) {
		return nil, wrongShard(m.id, s.view)
	}
	p, err := judge{source: s, view: s.view}.plan(req)
	if err != nil {
		return nil, err
	}
	resp := &pb.TxnResponse{Succeeded: p.succeeded}
	for _, op := range p.ops {
		req := op.GetRequestRange()
		if req == nil {
			return nil, malformed("a transaction that is not read-only was sent as a read")
		}
		o := listing.OptionsFor(req)
		o.Room = room
		f, err := s.Fetch(requestSpan(req), shard.Revision(req.Revision), o)
		if err != nil {
			return nil, err
		}
		resp.Responses = append(resp.Responses, rangeOp(req, f, s.at))
	}
	return resp, nil
}

// unmarked removes the mark of a refusal, which to a reader is an ordinary error.
func unmarked(err error) error {
	if answer, ok := asRefusal(err); ok {
		return answer
	}
	return err
}

// snapshot is the state as of a revision, all versions of which the engine still has. Each read
// verifies this again afterwards.
type snapshot struct {
	m    *Machine
	at   shard.Revision
	view shard.View // when the snapshot was taken
	// latest is set when no revision was requested.
	latest bool
}

// snapshot refuses a revision that cannot be read.
func (m *Machine) snapshot(at shard.Revision) (snapshot, error) {
	view := m.View()
	if view.Descriptor == nil {
		return snapshot{}, absent(m.id, view)
	}
	s := snapshot{m: m, at: at, view: view, latest: at <= 0}
	if s.latest {
		s.at = view.Rev
	}
	return s, readable(s.at, view)
}

// Fetch reads at a revision that is readable in the snapshot's view; 0 is its own.
//
// Garbage is removed only after the View that allows it, and an iterator keeps what existed when it
// was created. So if the revision is still allowed after the read, nothing was missing when the
// read began.
func (s snapshot) Fetch(span shard.Span, at shard.Revision, o listing.FetchOptions) (listing.Fetched, error) {
	own := at <= 0
	if own {
		at = s.at
	}
	f, err := s.m.rows.Fetch(s.m.stored(), span, s.view.Descriptor.Epoch, at, o)
	if err != nil {
		return listing.Fetched{}, fmt.Errorf("read shard %s: %w", s.m.id, err)
	}
	if err := s.stillReadable(at); err != nil {
		if own && s.latest && errors.Is(err, shard.ErrCompacted) {
			// The latest state is never compacted; it only got a newer revision meanwhile.
			return listing.Fetched{}, fmt.Errorf("read shard %s during a compaction: %w", s.m.id, shard.ErrUnavailable)
		}
		return listing.Fetched{}, err
	}
	return f, nil
}

// stillReadable validates a read at a revision after it was made.
func (s snapshot) stillReadable(at shard.Revision) error {
	now, err := s.m.settled()
	if err != nil {
		return err
	}
	if now.Descriptor == nil || now.Descriptor.Epoch != s.view.Descriptor.Epoch {
		// Keys that were given away meanwhile may have been compacted by their new owner.
		return wrongShard(s.m.id, now)
	}
	return readable(at, now)
}

// settled returns the view, after a read, that the read is to be judged by. While
// data is being replaced, or may be removed, there is none. The order matters: Install publishes the new
// view before it says that it has ended.
func (m *Machine) settled() (shard.View, error) {
	if m.installing.Load() {
		return shard.View{}, fmt.Errorf("read shard %s while its data is being replaced or removed: %w", m.id, shard.ErrUnavailable)
	}
	return m.View(), nil
}

// Get and Header let a read-only transaction be validated like any other.

func (s snapshot) Get(key []byte) (*mvccpb.KeyValue, error) {
	f, err := s.Fetch(shard.PointSpan(key), 0, listing.FetchOptions{})
	if err != nil || len(f.KVs) == 0 {
		return nil, err
	}
	return f.KVs[0], nil
}

func (s snapshot) Header(key []byte) (mvcc.Header, bool, error) {
	kv, err := s.Get(key)
	if err != nil || kv == nil {
		return mvcc.Header{}, false, err
	}
	return mvcc.Header{
		Create: shard.Revision(kv.CreateRevision), Mod: shard.Revision(kv.ModRevision),
		Version: kv.Version, Lease: kv.Lease,
	}, true, nil
}
