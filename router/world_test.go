package router

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/router/admission"
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
	var lanes *admission.Lanes
	var own Reader
	sender := &sender{w: w, seen: seen}
	if self != 0 {
		lanes, own = admission.NewLanes(nil, admission.Bounds{}), reader{sender, self}
	}
	return New(Config{
		Lanes: lanes, Self: self, Cache: NewCache(&directory{w: w, node: self}, 64), Sender: sender, Reader: own,
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

// Renewal implements Compactions: the latest revision of any shard.
func (w *world) Renewal() (latest shard.Revision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for rev := range w.minted {
		latest = max(latest, rev)
	}
	return latest
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
	size := int64(0)
	for _, kv := range w.cut(span, at) {
		if f.More || o.Done(len(f.KVs)) {
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
		size += int64(listing.PairBytes(kv.Key, kv.Value))
		f.More = o.Bytes > 0 && size >= o.Bytes
	}
	return f
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
