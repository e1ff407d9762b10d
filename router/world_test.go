package router

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// world is a model of a cluster behind the Sender seam: shards with revisions and
// floors, replicas that lag, leaders that come and go, spans that split and merge,
// placement tables that are late, and answers that get lost. It runs in a synctest
// bubble, so that its delays cost nothing.
//
// All keys' versions stand in one place, because revisions are unique: what a replica
// with floor F shows is what has a revision up to F.
type world struct {
	t     testing.TB
	seed  uint64
	nodes []shard.NodeID
	began time.Time

	// faults is how many of 1000 requests meet a fault.
	faults int
	// delayed makes messages take time.
	delayed bool
	// script, when set, is asked first; it returns false to let the model answer. It
	// runs under mu.
	script func(node shard.NodeID, req *Request) (*Reply, error, bool)

	// collected answers AwaitCollected; nil is at once.
	collected func(ctx context.Context, rev shard.Revision) error

	mu        sync.Mutex
	shards    map[shard.ID]*modelShard
	lastID    shard.ID
	versions  map[string][]version
	minted    map[shard.Revision]bool
	maps      []mapVersion // the placement table's history
	compacted shard.Revision
	leases    map[int64]*modelLease // the records, wherever their homes are
	lives     []leaseLife
	reign     uint64
	clock     int // counts what happens, to tell before from after
	sent      []sentRequest
	examined  int // keys that fetches have looked at
	skew      map[shard.NodeID]shard.Tick
	broken    []string // violations seen while running
}

type modelShard struct {
	history []shard.View // after each log entry
	applied map[shard.NodeID]int
	leader  shard.NodeID
	gone    bool
	// registered and fences are those of leases. From before a merge only newest is known:
	// the newest lease of an ID that keys were attached to.
	registered, newest map[int64]int64
	fences             map[int64]uint64
}

func (s *modelShard) now() shard.View { return s.history[len(s.history)-1] }

type version struct {
	rev     shard.Revision
	value   string
	deleted bool
	lease   attachment
}

type mapVersion struct {
	at          time.Duration
	from        int
	descriptors []*shard.Descriptor
}

type sentRequest struct {
	node  shard.NodeID
	shard shard.ID
	op    routerpb.Op
	kind  shardpb.Kind
}

// operation is one request of a client, found again in the context of what it sends.
type operation struct {
	id         int
	begin, end int
	calls      int
	writes     []written
	ambiguous  bool
}

type written struct {
	rev     shard.Revision
	deleted int
}

type operationKey struct{}

func operationOf(ctx context.Context) *operation {
	op, _ := ctx.Value(operationKey{}).(*operation)
	return op
}

func newWorld(t testing.TB, seed uint64, splits ...string) *world {
	w := &world{
		t: t, seed: seed, nodes: []shard.NodeID{1, 2, 3}, began: time.Now(),
		shards: make(map[shard.ID]*modelShard), lastID: shard.FirstDataID - 1,
		versions: make(map[string][]version), minted: make(map[shard.Revision]bool),
		skew: make(map[shard.NodeID]shard.Tick), leases: make(map[int64]*modelLease), reign: 1,
	}
	start := ""
	for i, end := range append(slices.Clone(splits), "") {
		w.lastID++
		d := &shard.Descriptor{
			ID: w.lastID, Span: shard.Span{Start: []byte(start), End: []byte(end)}, Epoch: 1, Generation: 1,
			Slot: shard.Slot(w.lastID), NextReplicaID: 4,
		}
		for j, node := range w.nodes {
			d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(j + 1), Node: node})
		}
		w.shards[d.ID] = &modelShard{
			history: []shard.View{{Rev: shard.FirstRevision, Floor: shard.FirstRevision, Descriptor: d}},
			applied: map[shard.NodeID]int{1: 0, 2: 0, 3: 0}, leader: w.nodes[i%len(w.nodes)],
			registered: make(map[int64]int64), newest: make(map[int64]int64), fences: make(map[int64]uint64),
		}
		start = end
	}
	w.publish()
	return w
}

// newRouter returns a router on a node, 0 for a client, with a cache of its own.
func (w *world) newRouter(self shard.NodeID, knobs Knobs) (*Router, *seenRevisions) {
	seen := &seenRevisions{}
	return New(Config{
		Self: self, Cache: NewCache(&directory{w: w, node: self}, 64), Sender: &sender{w: w, seen: seen},
		Revisions: seen, Compactions: w, ElectionTimeout: time.Second, Knobs: knobs,
	}), seen
}

type seenRevisions struct {
	mu  sync.Mutex
	rev shard.Revision
}

func (s *seenRevisions) Seen() shard.Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rev
}

func (s *seenRevisions) observe(rev shard.Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rev = max(s.rev, rev)
}

// directory is a node's copy of the placement table, late by some milliseconds.
type directory struct {
	w    *world
	node shard.NodeID
}

func (d *directory) Lookup(_ context.Context, key []byte) (*shard.Descriptor, error) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	late := time.Duration(0)
	if d.w.delayed {
		late = time.Duration(d.node) * 20 * time.Millisecond
	}
	visible := d.w.maps[0]
	for _, m := range d.w.maps {
		if m.at+late <= time.Since(d.w.began) {
			visible = m
		}
	}
	for _, desc := range visible.descriptors {
		if desc.Span.Contains(key) {
			return desc, nil
		}
	}
	panic("placement table with a hole")
}

// RecordCompaction implements Compactions.
func (w *world) RecordCompaction(_ context.Context, rev shard.Revision) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if rev <= w.compacted {
		return shard.ErrCompacted
	}
	w.compacted = rev
	return nil
}

// Compacted implements Compactions.
func (w *world) Compacted() shard.Revision {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.compacted
}

// AwaitCollected implements Compactions.
func (w *world) AwaitCollected(ctx context.Context, rev shard.Revision) error {
	if w.collected == nil {
		return nil
	}
	return w.collected(ctx, rev)
}

// publish puts the spans as they are into the placement table.
func (w *world) publish() {
	m := mapVersion{at: time.Since(w.began), from: w.clock}
	for _, s := range w.shards {
		if !s.gone {
			m.descriptors = append(m.descriptors, s.now().Descriptor)
		}
	}
	sort.Slice(m.descriptors, func(i, j int) bool {
		return string(m.descriptors[i].Span.Start) < string(m.descriptors[j].Span.Start)
	})
	w.maps = append(w.maps, m)
}

// owner is the shard that owns key now.
func (w *world) owner(key string) *modelShard {
	for _, s := range w.shards {
		if !s.gone && s.now().Descriptor.Span.Contains([]byte(key)) {
			return s
		}
	}
	panic("key without a shard")
}

func (s *modelShard) append(v shard.View) {
	v.Applied++
	s.history = append(s.history, v)
}

// split cuts the shard that owns key in two at it.
func (w *world) split(key string) {
	w.clock++
	s := w.owner(key)
	v := s.now()
	if string(v.Descriptor.Span.Start) == key {
		return
	}
	w.lastID++
	left, right := *v.Descriptor, *v.Descriptor
	left.Epoch, left.Generation = left.Epoch+1, left.Generation+1
	left.Span.End = []byte(key)
	right.ID, right.Slot, right.Epoch, right.Generation = w.lastID, shard.Slot(w.lastID), 1, 1
	right.Span.Start = []byte(key)
	before := len(s.history)
	lv := v
	lv.Descriptor = &left
	s.append(lv)
	rv := v // the child keeps what its parent promised (R4)
	rv.Descriptor = &right
	child := &modelShard{
		history: []shard.View{rv}, applied: make(map[shard.NodeID]int), leader: s.leader,
		registered: maps.Clone(s.registered), newest: maps.Clone(s.newest), fences: maps.Clone(s.fences),
	}
	for node, i := range s.applied {
		child.applied[node] = 0
		if i < before && node != s.leader {
			child.applied[node] = -1 // not split there yet
		}
	}
	w.shards[right.ID] = child
	w.publish()
}

// merge joins the shard that owns key with its right neighbour.
func (w *world) merge(key string) {
	w.clock++
	left := w.owner(key)
	lv := left.now()
	if len(lv.Descriptor.Span.End) == 0 {
		return
	}
	right := w.owner(string(lv.Descriptor.Span.End))
	rv := right.now()
	d := *lv.Descriptor
	d.Epoch, d.Generation = d.Epoch+1, d.Generation+1
	d.Span.End = rv.Descriptor.Span.End
	lv.Descriptor = &d
	lv.Rev, lv.Floor, lv.Compacted = max(lv.Rev, rv.Rev), max(lv.Floor, rv.Floor), max(lv.Compacted, rv.Compacted)
	left.append(lv)
	right.gone = true
	left.joinLeases(right)
	w.publish()
}

// locked runs f with the world held still.
func (w *world) locked(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) count(op routerpb.Op, kind shardpb.Kind) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, s := range w.sent {
		if s.op == op && s.kind == kind {
			n++
		}
	}
	return n
}

func (w *world) violation(format string, args ...any) {
	w.broken = append(w.broken, fmt.Sprintf(format, args...))
}

// cut is what the span holds at a revision.
func (w *world) cut(span shard.Span, at shard.Revision) []*mvccpb.KeyValue {
	var kvs []*mvccpb.KeyValue
	for key, versions := range w.versions {
		if !span.Contains([]byte(key)) {
			continue
		}
		var kv *mvccpb.KeyValue
		for _, v := range versions {
			switch {
			case v.rev > at:
			case v.deleted:
				kv = nil
			case kv == nil:
				kv = &mvccpb.KeyValue{Key: []byte(key), CreateRevision: int64(v.rev), ModRevision: int64(v.rev), Version: 1, Value: []byte(v.value), Lease: v.lease.id}
			default:
				kv = &mvccpb.KeyValue{Key: []byte(key), CreateRevision: kv.CreateRevision, ModRevision: int64(v.rev), Version: kv.Version + 1, Value: []byte(v.value), Lease: v.lease.id}
			}
		}
		if kv != nil {
			kvs = append(kvs, kv)
		}
	}
	sort.Slice(kvs, func(i, j int) bool { return string(kvs[i].Key) < string(kvs[j].Key) })
	return kvs
}

// expected is the answer to a range that read at a revision.
func (w *world) expected(req *pb.RangeRequest, at shard.Revision) *pb.RangeResponse {
	return listing.Respond(req, w.fetch(shard.RequestSpan(req.Key, req.RangeEnd), at, listing.OptionsFor(req)))
}

func (w *world) fetch(span shard.Span, at shard.Revision, o listing.FetchOptions) listing.Fetched {
	var f listing.Fetched
	for _, kv := range w.cut(span, at) {
		if o.Done(len(f.KVs)) {
			break
		}
		w.examined++
		f.Count++
		if o.CountOnly || o.Limit > 0 && int64(len(f.KVs)) >= o.Limit {
			continue
		}
		if o.KeysOnly {
			kv.Value = nil
		}
		f.KVs = append(f.KVs, kv)
	}
	return f
}

// sender is one process's way to the nodes of the world.
type sender struct {
	w    *world
	seen *seenRevisions
}

// Send implements Sender.
func (s *sender) Send(ctx context.Context, node shard.NodeID, req *Request) (*Reply, error) {
	w := s.w
	op := operationOf(ctx)
	isWrite := req.Op == routerpb.Op_OP_WRITE
	w.mu.Lock()
	sent := sentRequest{node: node, shard: req.Shard, op: req.Op}
	if isWrite {
		sent.kind = req.Command.Kind
	}
	w.sent = append(w.sent, sent)
	n := len(w.sent)
	if op != nil {
		op.calls++
		n = op.id*1000 + op.calls
		if op.ambiguous && isWrite && body(req) {
			w.violation("T1: operation %d sent %v again after an ambiguous answer", op.id, req.Command.Kind)
		}
	}
	w.mu.Unlock()
	rng := rand.New(rand.NewPCG(w.seed, uint64(n)<<16|uint64(req.Shard)))

	// What the answers of a lost message are.
	lost := func(err error) error {
		if isWrite {
			w.locked(func() { markAmbiguous(op, req) })
			return fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, err)
		}
		return fmt.Errorf("%w: %w", shard.ErrUnavailable, err)
	}
	if !w.travel(ctx, rng) {
		if rng.IntN(2) == 0 { // it was still in the queue
			return nil, fmt.Errorf("%w: %w", shard.ErrUnavailable, context.Cause(ctx))
		}
		if isWrite && rng.IntN(2) == 0 { // it arrives after its caller has left
			err := lost(context.Cause(ctx))
			w.locked(func() { _, _ = w.serve(op, node, copyOf(req), rng) })
			return nil, err
		}
		return nil, lost(context.Cause(ctx))
	}
	fault := rng.IntN(1000) < w.faults
	if fault && rng.IntN(2) == 0 {
		return nil, s.fault(op, req, rng)
	}
	w.mu.Lock()
	reply, err := w.serve(op, node, req, rng)
	w.mu.Unlock()
	if fault {
		if isWrite && rng.IntN(2) == 0 { // an error outside the vocabulary
			w.locked(func() { markAmbiguous(op, req) })
			return nil, errors.New("the reply does not decode")
		}
		return nil, lost(errors.New("stream ended"))
	}
	if !w.travel(ctx, rng) {
		return nil, lost(context.Cause(ctx))
	}
	if err == nil {
		s.seen.observe(reply.Rev)
	}
	return reply, err
}

// markAmbiguous remembers that a write may have been applied, unless applying it again
// changes nothing.
func markAmbiguous(op *operation, req *Request) {
	if op != nil && body(req) {
		op.ambiguous = true
	}
}

// body reports whether a write must not be sent twice.
func body(req *Request) bool {
	k := req.Command.Kind
	return k == shardpb.Kind_PUT || k == shardpb.Kind_DELETE_RANGE || k == shardpb.Kind_TXN || k == shardpb.Kind_LEASE_GRANT
}

func copyOf(req *Request) *Request {
	c := *req
	c.Command = proto.CloneOf(req.Command)
	return &c
}

// fault answers for a request that did nothing.
func (s *sender) fault(op *operation, req *Request, rng *rand.Rand) error {
	certain := []error{
		fmt.Errorf("connection refused: %w", shard.ErrUnavailable), shard.ErrStopped, shard.ErrClockUntrusted,
		&shard.NoReplicaError{Shard: req.Shard}, &shard.NotLeaderError{Shard: req.Shard}, &shard.NotLeaderError{Shard: req.Shard, Leader: 2},
		&shard.WrongShardError{Shard: req.Shard},
	}
	if req.Op == routerpb.Op_OP_WRITE && rng.IntN(4) == 0 {
		s.w.locked(func() { markAmbiguous(op, req) })
		return fmt.Errorf("timed out: %w", shard.ErrUnknownOutcome)
	}
	return certain[rng.IntN(len(certain))]
}

// travel takes a message's time. It returns false if the caller leaves meanwhile.
func (w *world) travel(ctx context.Context, rng *rand.Rand) bool {
	if !w.delayed {
		return ctx.Err() == nil
	}
	t := time.NewTimer(time.Duration(rng.IntN(2_000_000)))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// serve is what a node answers.
func (w *world) serve(op *operation, node shard.NodeID, req *Request, rng *rand.Rand) (*Reply, error) {
	if w.script != nil {
		if reply, err, done := w.script(node, req); done {
			return reply, err
		}
	}
	w.clock++
	s := w.shards[req.Shard]
	if s == nil || s.gone || !slices.Contains(w.nodes, node) {
		return nil, &shard.NoReplicaError{Shard: req.Shard}
	}
	defer w.checkLeases()
	if req.Op == routerpb.Op_OP_WRITE {
		return w.write(op, s, node, req)
	}
	return w.read(s, node, req, rng)
}

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
		v.Compacted, v.Rev, v.Floor = to, max(v.Rev, to), max(v.Floor, to)
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
			Limit: req.Limit, KeysOnly: rr.KeysOnly, CountOnly: rr.CountOnly, NoCount: req.NoCount,
		})
		reply.Message = &pb.RangeResponse{Kvs: got.KVs, Count: got.Count}
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

func must(err error) {
	if err != nil {
		panic(err)
	}
}
