package watchmerge

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.uber.org/goleak"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a model of shards behind the router: replicas that lag, leaders that are lost,
// spans that split, merge and move, history that is compacted. All changes stand in one
// log, because revisions are unique: what a replica shows is what its floor has reached.
type world struct {
	t   testing.TB
	rng *rand.Rand

	mu        sync.Mutex
	shards    []*modelShard // in key order
	lastID    shard.ID
	log       []*mvccpb.Event
	clock     shard.Tick
	compacted shard.Revision
	recorded  recorded // what the process of the merger knows
	feeds     map[*modelFeed]bool
	opened    int // feeds, since the test began
	closes    int // requests to close a shard or to promise so
	promises  int // of them
	frozen    bool
	refuse    error // what Subscribe answers
}

type modelShard struct {
	desc    *shard.Descriptor
	leader  shard.NodeID
	rev     shard.Revision
	floor   shard.Revision
	applied map[shard.NodeID]shard.Revision // floors
}

func newWorld(t testing.TB, seed uint64, splits ...string) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 0)), lastID: shard.FirstDataID - 1, feeds: make(map[*modelFeed]bool)}
	start := ""
	for _, end := range append(slices.Clone(splits), "") {
		w.lastID++
		d := &shard.Descriptor{
			ID: w.lastID, Span: shard.Span{Start: []byte(start), End: []byte(end)}, Epoch: 1, Generation: 1, Slot: shard.Slot(w.lastID),
		}
		s := &modelShard{desc: d, leader: 1, rev: 1, floor: 1, applied: make(map[shard.NodeID]shard.Revision)}
		for node := shard.NodeID(1); node <= 3; node++ {
			d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(node), Node: node})
			s.applied[node] = 1
		}
		w.shards = append(w.shards, s)
		start = end
	}
	return w
}

// merger returns a Merger on node 1.
func (w *world) merger() (*Merger, *router.Router) {
	r := router.New(router.Config{Self: 1, Cache: router.NewCache(w, 64), Sender: w, Subscriber: w, Heeder: w, Revisions: w, Compactions: &w.recorded})
	m := New(r, Knobs{})
	w.t.Cleanup(func() {
		m.Close()
		r.Close()
	})
	return m, r
}

// Seen implements router.Revisions.
func (w *world) Seen() shard.Revision {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest()
}

// closed is how many proposals were made for the sake of reads and watches.
func (w *world) closed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closes
}

func (w *world) latest() shard.Revision {
	rev := shard.FirstRevision
	for _, s := range w.shards {
		rev = max(rev, s.rev)
	}
	return rev
}

// Lookup implements router.Directory.
func (w *world) Lookup(_ context.Context, key []byte) (*shard.Descriptor, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.owner(key).desc, nil
}

func (w *world) owner(key []byte) *modelShard {
	i := slices.IndexFunc(w.shards, func(s *modelShard) bool { return s.desc.Span.Contains(key) })
	return w.shards[i]
}

// replica finds the shard if the node has a replica of it.
func (w *world) replica(node shard.NodeID, id shard.ID) (*modelShard, error) {
	i := slices.IndexFunc(w.shards, func(s *modelShard) bool { return s.desc.ID == id })
	if i < 0 {
		return nil, &shard.NoReplicaError{Shard: id}
	}
	s := w.shards[i]
	if _, ok := s.desc.ReplicaOn(node); !ok {
		return nil, &shard.NoReplicaError{Shard: id}
	}
	return s, nil
}

// at finds the shard that a request was sent for.
func (w *world) at(node shard.NodeID, id shard.ID, epoch uint64) (*modelShard, error) {
	s, err := w.replica(node, id)
	if err != nil {
		return nil, err
	}
	if s.desc.Epoch != epoch {
		return nil, &shard.WrongShardError{Shard: id, Descriptors: []*shard.Descriptor{s.desc}}
	}
	return s, nil
}

// Send implements router.Sender: probes and closes.
func (w *world) Send(_ context.Context, node shard.NodeID, req *router.Request) (*router.Reply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	epoch := req.Epoch
	if req.Command != nil {
		epoch = req.Command.Epoch
	}
	s, err := w.at(node, req.Shard, epoch)
	switch {
	case err != nil:
		return nil, err
	case s.leader == 0:
		return nil, fmt.Errorf("no leader: %w", shard.ErrUnavailable)
	case req.Op == routerpb.Op_OP_PROBE:
		s.applied[node] = s.floor
		w.notify()
		return &router.Reply{Rev: s.rev, Floor: s.floor}, nil
	case req.Op == routerpb.Op_OP_WRITE && req.Command.Kind == shardpb.Kind_CLOSE:
		if s.leader != node {
			return nil, &shard.NotLeaderError{Shard: req.Shard, Leader: s.leader}
		}
		w.closes++
		before := s.floor
		s.floor = max(s.floor, shard.Revision(req.Command.Revision))
		if req.Promise { // nobody is told but the sender; a floor stands for a place in the log
			w.promises++
			return &router.Reply{Rev: s.rev, Floor: before, Index: uint64(before)}, nil
		}
		w.follow(s)
		return &router.Reply{Rev: s.rev, Floor: s.floor}, nil
	}
	panic("the model is asked for what watches do not need")
}

// Heed implements router.Heeder, for node 1. What it would wait for happens at once.
func (w *world) Heed(_ context.Context, id shard.ID, floor shard.Revision, index uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.shards, func(s *modelShard) bool { return s.desc.ID == id })
	if i < 0 {
		return &shard.NoReplicaError{Shard: id}
	}
	s := w.shards[i]
	have, ok := s.applied[1]
	switch {
	case !ok:
		return &shard.NoReplicaError{Shard: id}
	case !w.frozen && w.rng.IntN(4) == 0:
		return fmt.Errorf("stopped meanwhile: %w", shard.ErrUnavailable)
	}
	s.applied[1] = max(have, shard.Revision(index), floor)
	w.notify()
	return nil
}

// follow lets replicas apply some of what the shard has. They stay behind as long as the
// world is not frozen.
func (w *world) follow(s *modelShard) {
	for node, have := range s.applied {
		if w.frozen || w.rng.IntN(3) == 0 {
			s.applied[node] = s.floor
		} else if w.rng.IntN(2) == 0 && s.floor > have {
			s.applied[node] = have + shard.Revision(w.rng.Int64N(int64(s.floor-have)+1))
		}
	}
	w.notify()
}

// put changes the keys, which lie in one shard, in one transaction.
func (w *world) put(keys ...string) shard.Revision {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.owner([]byte(keys[0]))
	w.clock++
	rev := shard.NextRevision(s.floor, w.clock, s.desc.Slot)
	w.clock = rev.Tick()
	for _, key := range keys {
		w.log = append(w.log, &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: int64(rev)}})
	}
	s.rev, s.floor = rev, rev
	w.follow(s)
	return rev
}

// split cuts the shard that owns key in two at it.
func (w *world) split(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.owner([]byte(key))
	if string(s.desc.Span.Start) == key {
		return
	}
	w.lastID++
	left, right := *s.desc, *s.desc
	left.Epoch, left.Generation = left.Epoch+1, left.Generation+1
	left.Span.End = []byte(key)
	right.ID, right.Slot, right.Epoch, right.Generation = w.lastID, shard.Slot(w.lastID), 1, 1
	right.Span.Start = []byte(key)
	n := &modelShard{desc: &right, leader: s.leader, rev: s.rev, floor: s.floor, applied: make(map[shard.NodeID]shard.Revision)}
	for node, floor := range s.applied {
		n.applied[node] = floor
	}
	s.desc = &left
	w.shards = slices.Insert(w.shards, slices.Index(w.shards, s)+1, n)
	w.notify()
}

// merge joins the shard that owns key to its left neighbour.
func (w *world) merge(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	right := w.owner([]byte(key))
	i := slices.Index(w.shards, right)
	if i == 0 {
		return
	}
	left := w.shards[i-1]
	d := *left.desc
	d.Epoch, d.Generation = d.Epoch+1, d.Generation+1
	d.Span.End = right.desc.Span.End
	left.desc = &d
	left.rev, left.floor = max(left.rev, right.rev), max(left.floor, right.floor)
	for node := range left.applied {
		left.applied[node] = left.floor
	}
	w.shards = slices.Delete(w.shards, i, i+1)
	w.notify()
}

// move puts the shard's replicas on three other of five nodes.
func (w *world) move(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.owner([]byte(key))
	d := *s.desc
	d.Generation++
	d.Replicas = nil
	was := s.applied
	s.applied = make(map[shard.NodeID]shard.Revision)
	for i, n := range w.rng.Perm(5)[:3] {
		node := shard.NodeID(n + 1)
		d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(100*int(d.Generation) + i), Node: node})
		s.applied[node] = max(was[node], 1)
	}
	s.desc, s.leader = &d, d.Replicas[0].Node
	w.notify()
}

// elect changes the leader of the shard that owns key; 0 leaves it without.
func (w *world) elect(key string, leader bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.owner([]byte(key))
	s.leader = 0
	if leader {
		s.leader = s.desc.Replicas[w.rng.IntN(len(s.desc.Replicas))].Node
	}
}

// compact removes history below rev from everywhere.
func (w *world) compact(rev shard.Revision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.compacted = max(w.compacted, rev)
	w.notify()
}

// cutFeed ends a random feed as a broken connection would.
func (w *world) cutFeed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for f := range w.feeds {
		f.broken = []error{shard.ErrUnavailable, shard.ErrStopped}[w.rng.IntN(2)]
		f.ready()
		return
	}
}

// freeze mends everything: all shards are led and all replicas caught up.
func (w *world) freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen = true
	for _, s := range w.shards {
		s.leader = s.desc.Replicas[0].Node
		w.follow(s)
	}
}

// changes lists what a watch of the span has to give, as transactions.
func (w *world) changes(span shard.Span, from, to shard.Revision) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var events []*mvccpb.Event
	for _, e := range w.log {
		if span.Contains(e.Kv.Key) && revision(e) >= from && revision(e) <= to {
			events = append(events, e)
		}
	}
	slices.SortStableFunc(events, func(a, b *mvccpb.Event) int { return int(revision(a) - revision(b)) })
	return transactions(events)
}

// transactions renders events with those of one revision together, in key order: of one
// transaction that is all that can be said once it is in several shards.
func transactions(events []*mvccpb.Event) []string {
	var out []string
	for len(events) > 0 {
		n := 0
		var keys []string
		for ; n < len(events) && revision(events[n]) == revision(events[0]); n++ {
			keys = append(keys, string(events[n].Kv.Key))
		}
		slices.Sort(keys)
		out = append(out, fmt.Sprintf("%d %v", revision(events[0]), keys))
		events = events[n:]
	}
	return out
}

// notify wakes every feed that has something new; mu is held.
func (w *world) notify() {
	for f := range w.feeds {
		f.announce()
	}
}

// Subscribe implements router.Subscriber.
func (w *world) Subscribe(_ context.Context, node shard.NodeID, sub router.Subscription, ready func()) (router.Feed, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opened++
	if w.refuse != nil {
		return nil, w.refuse
	}
	s, err := w.at(node, sub.Shard, sub.Epoch)
	if err != nil {
		return nil, err
	}
	if sub.From < w.compacted {
		return nil, &shard.CompactedError{Compacted: w.compacted}
	}
	require.True(w.t, s.desc.Span.ContainsSpan(sub.Span), "asked for %v of shard %v", sub.Span, s.desc.Span)
	f := &modelFeed{world: w, node: node, sub: sub, next: sub.From, ready: ready}
	w.feeds[f] = true
	return f, nil
}

// modelFeed is a subscription at one replica. It says ready only when the contract asks
// for it: a watch that waits for more would hang.
type modelFeed struct {
	world   *world
	node    shard.NodeID
	sub     router.Subscription
	ready   func()
	next    shard.Revision
	said    shard.Revision // what ready has been said of
	awaited shard.Revision
	broken  error
	over    bool // its end has been said
	polled  int
	seen    shard.Revision // how far the replica had come when it was last looked at
	told    shard.Revision // what Poll has returned of that
}

// state ends a feed when the shard gives its keys away. As long as it does not, a feed goes on
// through splits and merges, though its holder knows the shard by an older epoch.
func (f *modelFeed) state() (applied shard.Revision, err error) {
	if f.broken != nil {
		return 0, f.broken
	}
	s, err := f.world.replica(f.node, f.sub.Shard)
	if err == nil && !s.desc.Span.ContainsSpan(f.sub.Span) {
		err = &shard.WrongShardError{Shard: f.sub.Shard, Descriptors: []*shard.Descriptor{s.desc}}
	}
	if err != nil {
		f.broken = err // for good, whatever comes back
		return 0, err
	}
	f.seen = s.applied[f.node]
	return f.seen, nil
}

// pending lists what Poll would give; mu is held.
func (f *modelFeed) pending(applied shard.Revision) []*mvccpb.Event {
	var events []*mvccpb.Event
	for _, e := range f.world.log {
		if f.sub.Span.Contains(e.Kv.Key) && revision(e) >= f.next && revision(e) <= applied {
			events = append(events, e)
		}
	}
	slices.SortStableFunc(events, func(a, b *mvccpb.Event) int { return int(revision(a) - revision(b)) })
	return events
}

func (f *modelFeed) announce() {
	applied, err := f.state()
	if err != nil {
		if !f.over {
			f.over = true
			f.ready()
		}
		return
	}
	events := f.pending(applied)
	if len(events) == 0 { // it has been given everything: what is compacted by now is not missed
		f.next = maxRevision(f.next, applied+1)
	} else if revision(events[len(events)-1]) > f.said {
		f.said = revision(events[len(events)-1])
		f.ready()
	}
	if f.awaited > 0 && applied >= f.awaited {
		f.awaited = 0
		f.ready()
	}
}

// Poll implements router.Feed.
func (f *modelFeed) Poll(max int) (shard.Changes, error) {
	w := f.world
	w.mu.Lock()
	defer w.mu.Unlock()
	f.polled++
	applied, err := f.state()
	if err != nil {
		if f.seen > f.told && len(f.pending(f.seen)) == 0 { // before the end
			f.told = f.seen
			f.ready()
			return shard.Changes{Through: f.told}, nil
		}
		delete(w.feeds, f)
		return shard.Changes{}, err
	}
	events := f.pending(applied)
	if len(events) > 0 && f.next < w.compacted {
		delete(w.feeds, f)
		return shard.Changes{}, &shard.CompactedError{Compacted: w.compacted}
	}
	if len(events) > max {
		n := max
		for ; n < len(events) && revision(events[n]) == revision(events[n-1]); n++ {
		}
		events = slices.Clone(events[:n])
		applied = revision(events[n-1])
		f.ready() // for the rest
	}
	f.next, f.told = maxRevision(f.next, applied+1), applied
	return shard.Changes{Events: events, Through: applied}, nil
}

func maxRevision(a, b shard.Revision) shard.Revision { return max(a, b) }

// Await implements router.Feed.
func (f *modelFeed) Await(rev shard.Revision) {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	f.awaited = rev
	f.announce()
}

// Close implements router.Feed.
func (f *modelFeed) Close() {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	delete(f.world.feeds, f)
}

// client takes what a watch gives and checks what can be checked at once.
type client struct {
	t     testing.TB
	span  shard.Span
	from  shard.Revision
	watch *Watch
	kick  chan struct{}

	events  []*mvccpb.Event
	through shard.Revision
	err     error
}

func (m *Merger) client(t testing.TB, span shard.Span, from shard.Revision) *client {
	c := &client{t: t, span: span, from: from, kick: make(chan struct{}, 1)}
	c.watch = m.Open(Options{Span: span, From: from}, func() {
		select {
		case c.kick <- struct{}{}:
		default:
		}
	})
	return c
}

// take polls until there is nothing more.
func (c *client) take(max int) {
	for again := true; again && c.err == nil; {
		got, err := c.watch.Poll(max)
		if err != nil {
			c.err = err
			return
		}
		for i, e := range got.Events {
			require.True(c.t, c.span.Contains(e.Kv.Key))
			require.GreaterOrEqual(c.t, revision(e), c.from)
			require.Greater(c.t, revision(e), c.through, "an event at or below what was promised (W1, W2, W6)")
			if i > 0 {
				require.GreaterOrEqual(c.t, revision(e), revision(got.Events[i-1]), "order (W1)")
			}
			require.LessOrEqual(c.t, revision(e), got.Through, "given, but not in Through")
		}
		c.through = maxRevision(c.through, got.Through)
		c.events = append(c.events, got.Events...)
		again = false
		select {
		case <-c.kick:
			again = true
		default:
		}
	}
}

// until waits until the watch has come to rev.
func (c *client) until(rev shard.Revision) {
	for c.take(64); c.through < rev && c.err == nil; c.take(64) {
		<-c.kick
	}
}

func (c *client) keys() string {
	var b bytes.Buffer
	for _, e := range c.events {
		b.Write(e.Kv.Key)
		b.WriteByte(' ')
	}
	return b.String()
}
