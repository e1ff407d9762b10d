package replica

import (
	"errors"
	"math"
	"reflect"
	"time"
	"unsafe"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// nobody is in the sets of wakeups without being a shard: the workers skip what they do not run.
	nobody = math.MaxUint64
	// remindEvery is how often an apply worker is reminded of a replica that starts.
	remindEvery = 20 * time.Millisecond
)

// wakeups keeps dragonboat's workers from looking at all replicas for nothing.
//
// Whoever has work for a worker adds the shard to the worker's set, then sends it a wake-up. The worker takes the whole
// set when it wakes. If it wakes for another reason in between, the wake-up that follows finds the set empty, and for
// dragonboat an empty set means all replicas. Amid writes to 256 shards every fifth wake-up was such a one; two thirds
// of all looks at a replica were for nothing. So each time a worker has taken its set, the next one is given a member
// that is no shard.
//
// One thing relied on these looks: a worker that has not loaded a replica yet when it is told to start it forgets that.
// It would look again when nodeReloadInterval has passed. So it is reminded until the replica has started.
type wakeups struct {
	step  []unsafe.Pointer // *dragonboat.readyShard of each step worker
	apply []unsafe.Pointer // of each apply worker; shards are divided among them by the remainder of their IDs
	ready unsafe.Pointer   // *dragonboat.workReady, which has those of the apply workers
}

// setShardReady adds a shard to a worker's set.
//
//go:linkname setShardReady github.com/lni/dragonboat/v4.(*readyShard).setShardReady
func setShardReady(set unsafe.Pointer, shardID uint64)

// wakeForShard adds a shard to the set of its worker, and sends the wake-up.
//
//go:linkname wakeForShard github.com/lni/dragonboat/v4.(*workReady).shardReady
func wakeForShard(ready unsafe.Pointer, shardID uint64)

// find is called before there is any replica. It fails if dragonboat no longer keeps its sets where it did.
func (w *wakeups) find(nh *dragonboat.NodeHost) error {
	moved := errors.New("dragonboat's sets of replicas that have work are not where they were")
	engine := reflect.ValueOf(nh).Elem().FieldByName("engine")
	if !isPointer(engine, "*dragonboat.engine") {
		return moved
	}
	for name, sets := range map[string]*[]unsafe.Pointer{"stepWorkReady": &w.step, "applyWorkReady": &w.apply} {
		ready := engine.Elem().FieldByName(name)
		if !isPointer(ready, "*dragonboat.workReady") {
			return moved
		}
		maps := ready.Elem().FieldByName("maps")
		if !maps.IsValid() || maps.Type().String() != "[]*dragonboat.readyShard" || maps.Len() == 0 {
			return moved
		}
		for i := range maps.Len() {
			*sets = append(*sets, maps.Index(i).UnsafePointer())
		}
		if sets == &w.apply {
			w.ready = ready.UnsafePointer()
		}
	}
	return nil
}

func isPointer(v reflect.Value, name string) bool {
	return v.IsValid() && v.Type().String() == name && !v.IsNil()
}

// stepped is called by a step worker, whose number counts from 1, after it took its set.
func (w *wakeups) stepped(worker uint64) { setShardReady(w.step[worker-1], nobody) }

// applied is called by the shard's apply worker after it took its set.
func (w *wakeups) applied(id shard.ID) {
	setShardReady(w.apply[uint64(id)%uint64(len(w.apply))], nobody)
}

// remind has the shard's apply worker start the replica, until stop is called.
func (w *wakeups) remind(id shard.ID) (stop func()) {
	started := make(chan struct{})
	go func() {
		again := time.NewTicker(remindEvery)
		defer again.Stop()
		for {
			select {
			case <-again.C:
				wakeForShard(w.ready, uint64(id))
			case <-started:
				return
			}
		}
	}()
	return func() { close(started) }
}

// steppedLogs opens a log that tells wakeups of each step.
type steppedLogs struct {
	config.LogDBFactory
	wakeups *wakeups
}

// Create implements config.LogDBFactory.
func (s *steppedLogs) Create(c config.NodeHostConfig, f config.LogDBCallback, folders, low []string) (raftio.ILogDB, error) {
	log, err := s.LogDBFactory.Create(c, f, folders, low)
	if err != nil {
		return nil, err
	}
	return &steppedLog{log, s.wakeups}, nil
}

type steppedLog struct {
	raftio.ILogDB
	wakeups *wakeups
}

// SaveRaftState implements raftio.ILogDB. A step worker saves each time it has stepped replicas, even if that is nothing.
func (l *steppedLog) SaveRaftState(updates []raftpb.Update, worker uint64) error {
	l.wakeups.stepped(worker)
	return l.ILogDB.SaveRaftState(updates, worker)
}
