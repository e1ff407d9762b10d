package engine

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/powercut"
	"github.com/flotilla-kv/flotilla/shard"
)

var lives = flag.Int("lives", 60, "of TestLives")

// lifeOpsMax is how many operations of the disk a life has, at most: a start takes some thirty of them.
const lifeOpsMax = 1500

// storeLife is a store from one loss of power to the next, which comes before any operation of the disk.
type storeLife struct {
	disk      *powercut.Disk
	percent   int
	models    [replicas]*replicaModel
	rev       *atomic.Int64
	committed [replicas]atomic.Uint64 // index of each replica in the store
	durable   [replicas]atomic.Uint64 // and known to be durable

	left atomic.Int64 // operations
	ctx  context.Context
	cut  context.CancelFunc
	// What is left; set before ctx is done.
	after       *powercut.Disk
	durableThen [replicas]uint64
	where       string
}

func (l *storeLife) before(op errorfs.Op) {
	if !powercut.Changes(op) || l.left.Add(-1) != 0 {
		return
	}
	for i := range l.durableThen {
		l.durableThen[i] = l.durable[i].Load() // before the copy: it may only grow
	}
	l.after = l.disk.Cut(l.percent, rand.New(rand.NewPCG(*seed, uint64(op.Kind))))
	l.where = fmt.Sprintf("power cut before op %d on %s", op.Kind, op.Path)
	l.cut()
}

// The crash test again, in which what a loss of power leaves is used and loses power, while it is opened too, and the replicas
// go on beside each other: each commits while the other one replaces its data and syncs.
func TestLives(t *testing.T) {
	t.Logf("replay with: go test ./shard/engine -run TestLives -seed=%d -lives=%d", *seed, *lives)
	t.Run("only what was synced survives", func(t *testing.T) { playLives(t, powercut.New(false), 0) })
	t.Run("some of the rest survives", func(t *testing.T) { playLives(t, powercut.New(true), 50) })
}

func playLives(t *testing.T, disk *powercut.Disk, percent int) {
	rng := rand.New(rand.NewPCG(*seed, uint64(percent)))
	models, rev, where := crashModels(), &atomic.Int64{}, "nothing"
	rev.Store(1)
	var durable [replicas]uint64
	for n := range *lives {
		l := &storeLife{disk: disk, percent: percent, models: models, rev: rev}
		l.ctx, l.cut = context.WithCancel(t.Context())
		l.left.Store(1 + rng.Int64N(lifeOpsMax))
		e, err := Open(storeDir, crashOptions(disk.FS(l.before)))
		require.NoError(t, err, "life %d after a %s", n, where)
		for i, index := range checkModels(t, e, models, durable, fmt.Sprintf("life %d after a %s", n, where)) {
			models[i].forget(index)
			l.committed[i].Store(index)
			l.durable[i].Store(index) // as what is there was left by a loss of power
		}
		var going sync.WaitGroup
		for i := range models {
			rng := rand.New(rand.NewPCG(rng.Uint64(), 0))
			going.Go(func() {
				for l.ctx.Err() == nil {
					l.step(t, e, rng, i)
				}
			})
		}
		going.Wait()
		require.NoError(t, e.Close()) // on a disk that nobody looks at any more
		disk, durable, where = l.after, l.durableThen, l.where
	}
}

// step has a replica do one thing.
func (l *storeLife) step(t *testing.T, e *Engine, rng *rand.Rand, i int) {
	m, rev := l.models[i], shard.Revision(l.rev.Add(1))
	switch rng.IntN(snapshots) {
	case 0:
		m.before[m.index()+1] = l.committed[1-i].Load()
		crashReplace(t, e, m, rev)
		l.committed[i].Store(m.index())
		raise(&l.durable[i], m.index())
	case 1:
		upTo := [replicas]uint64{l.committed[0].Load(), l.committed[1].Load()}
		require.NoError(t, e.Sync())
		for k := range upTo {
			raise(&l.durable[k], upTo[k])
		}
	case 2:
		crashUpdate(t, e, rev, rng, crashMemTable/2, m)
		l.committed[i].Store(m.index())
	default:
		crashUpdate(t, e, rev, rng, 0, m)
		l.committed[i].Store(m.index())
	}
}

// raise is a store that never goes back.
func raise(a *atomic.Uint64, to uint64) {
	for was := a.Load(); was < to && !a.CompareAndSwap(was, to); was = a.Load() {
	}
}

// forget is what a loss of power does to what comes after an update.
func (m *replicaModel) forget(index uint64) {
	m.state = m.state[:index+1]
	for i := range m.before {
		if i > index {
			delete(m.before, i)
		}
	}
}
