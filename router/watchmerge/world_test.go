package watchmerge

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

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
	refuse    error    // what Subscribe answers
	lost      shard.ID // the shard of which nobody can be reached
	value     []byte   // of what is put
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
