package engine

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/powercut"
	"github.com/flotilla-kv/flotilla/shard"
)

// The crash test plays two replicas that apply updates; each update writes data, a
// lease, an attached key and the applied index in one batch, and sometimes one batch has updates of
// both. Sometimes a replica restores a snapshot instead
// (Replace). At every sync, and at some other writes, the machine may lose power: a
// copy of the file system keeps what was synced and a random part of the rest. Each
// copy must open and show, for each replica, the state after some applied index that
// is not below the last one known to be durable (E1, E2, E3), nor below what the replica had
// applied before a snapshot of the other one that is there (E6).

// powerCuts takes crash copies of a file system while it is used.
type powerCuts struct {
	disk *powercut.Disk
	// percents of unsynced data that a copy keeps, drawn for each.
	percents []int
	durable  [replicas]atomic.Uint64 // index each replica has seen synced

	mu   sync.Mutex
	rng  *rand.Rand
	cuts []powerCut
}

type powerCut struct {
	disk    *powercut.Disk
	durable [replicas]uint64
	op      string
	percent int
}

const (
	replicas = 2
	cutsMax  = 250 // a copy is opened in a few milliseconds
	keysPer  = 5
	// crashMemTable is the size of Pebble's memtables.
	crashMemTable = 16 << 10
	crashOps      = 120
	snapshots     = 10 // one operation in so many is a Replace
)

// before is called before each operation of the file system.
func (p *powerCuts) before(op errorfs.Op) {
	var chance float64
	switch op.Kind {
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		chance = 0.5
	case errorfs.OpRename, errorfs.OpLink, errorfs.OpCreate, errorfs.OpRemove:
		chance = 0.2
	case errorfs.OpFileWrite:
		chance = 0.02
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.cuts) == cutsMax || p.rng.Float64() >= chance {
		return
	}
	c := powerCut{op: fmt.Sprintf("op %d on %s", op.Kind, op.Path), percent: p.percents[p.rng.IntN(len(p.percents))]}
	for i := range c.durable {
		c.durable[i] = p.durable[i].Load() // before the copy: it may only grow
	}
	c.disk = p.disk.Cut(c.percent, p.rng)
	p.cuts = append(p.cuts, c)
}

// replicaModel is what one replica has done: state[i] is its data after update i.
type replicaModel struct {
	id    shard.ID
	span  shard.Span
	state []map[string]string // key@revision -> value
	// before is, by the index of a snapshot, how far the other replica was then.
	before map[uint64]uint64
}

func (m *replicaModel) next() map[string]string {
	s := map[string]string{}
	for k, v := range m.state[len(m.state)-1] {
		s[k] = v
	}
	return s
}

func (m *replicaModel) index() uint64 { return uint64(len(m.state) - 1) }

func (m *replicaModel) applied() KV {
	return KV{LocalKey(m.id, 1, 0), []byte(strconv.FormatUint(m.index(), 10))}
}

// lease returns one of few leases that live in the span.
func (m *replicaModel) lease(rev shard.Revision) int64 {
	id := int64(rev) % 7
	for !m.span.Contains(shard.HomeKey(id)) {
		id += 7
	}
	return id
}

func TestCrash(t *testing.T) {
	t.Logf("replay with: go test ./shard/engine -run TestCrash -seed=%d", *seed)
	t.Run("only what was synced survives", func(t *testing.T) {
		testCrash(t, &powerCuts{disk: powercut.New(false), percents: []int{0}, rng: rand.New(rand.NewPCG(*seed, 2))})
	})
	t.Run("some of the rest survives", func(t *testing.T) {
		testCrash(t, &powerCuts{disk: powercut.New(true), percents: []int{20, 50, 80, 100}, rng: rand.New(rand.NewPCG(*seed, 3))})
	})
}

// crashOptions are of a store that flushes and compacts often.
func crashOptions(fs vfs.FS) Options {
	return Options{FS: fs, CacheBytes: 1 << 20, tune: func(o *pebble.Options) {
		o.MemTableSize = crashMemTable
		o.TargetFileSizes[0] = 4 << 10
	}}
}

func crashModels() [replicas]*replicaModel {
	return [replicas]*replicaModel{
		{id: 2, span: span("", "m"), state: []map[string]string{{}}, before: map[uint64]uint64{}},
		{id: 3, span: span("m", ""), state: []map[string]string{{}}, before: map[uint64]uint64{}},
	}
}

func testCrash(t *testing.T, p *powerCuts) {
	rng := rand.New(rand.NewPCG(*seed, 1))
	e, err := Open(storeDir, crashOptions(p.disk.FS(p.before)))
	require.NoError(t, err)

	models := crashModels()
	for rev := shard.Revision(2); rev < crashOps; rev++ {
		who := rng.IntN(replicas)
		m := models[who]
		switch rng.IntN(snapshots) {
		case 0:
			snapshot := func() {
				m.before[m.index()+1] = models[1-who].index()
				crashReplace(t, e, m, rev)
				p.durable[who].Store(m.index())
			}
			snapshot()
			if rng.IntN(2) == 0 { // the next one when Pebble has only the other's commits in memory
				crashUpdate(t, e, rev, rng, 0, models[1-who])
				rev++
				snapshot()
			}
		case 1, 2:
			upTo := [replicas]uint64{models[0].index(), models[1].index()}
			require.NoError(t, e.Sync())
			for i := range upTo {
				p.durable[i].Store(upTo[i])
			}
		case 3: // so much that Pebble takes it without its memtable
			crashUpdate(t, e, rev, rng, crashMemTable/2, models[:]...)
		default:
			crashUpdate(t, e, rev, rng, 0, m)
		}
	}
	require.NoError(t, e.Close())

	t.Logf("%d power cuts", len(p.cuts))
	for _, c := range p.cuts {
		checkAfterCut(t, c, models)
	}
}

func userKey(m *replicaModel, i int) []byte {
	return fmt.Appendf(m.span.Start[:len(m.span.Start):len(m.span.Start)], "k%d", i)
}

// crashUpdate is an update of one replica, or of several that share a batch. Values are of
// about so many bytes.
func crashUpdate(t *testing.T, e *Engine, rev shard.Revision, rng *rand.Rand, bytes int, models ...*replicaModel) {
	b := e.NewBatch()
	defer b.Close()
	for _, m := range models {
		s := m.next()
		for range 1 + rng.IntN(3) {
			key := userKey(m, rng.IntN(keysPer))
			value := fmt.Sprintf("%d/%0*d", rev, bytes, rng.IntN(1000))
			require.NoError(t, b.Set(DataKey(key, rev), []byte(value), nil))
			s[fmt.Sprintf("%s@%d", key, rev)] = value
		}
		id, key := m.lease(rev), userKey(m, rng.IntN(keysPer))
		require.NoError(t, b.Set(LeaseKey(id), []byte("granted"), nil))
		require.NoError(t, b.Set(AttachedKey(id, key), nil, nil))
		s[fmt.Sprintf("%x", id)] = "granted"
		s[fmt.Sprintf("%d %q", id, key)] = ""
		m.state = append(m.state, s)
		require.NoError(t, b.Set(m.applied().Key, m.applied().Value, nil))
	}
	require.NoError(t, e.Commit(b))
}

func crashReplace(t *testing.T, e *Engine, m *replicaModel, rev shard.Revision) {
	s := map[string]string{}
	for i := range keysPer {
		s[fmt.Sprintf("%s@%d", userKey(m, i), rev)] = "snapshot"
	}
	id := m.lease(rev)
	s[fmt.Sprintf("%x", id)] = "snapshot"
	s[fmt.Sprintf("%d %q", id, userKey(m, 0))] = ""
	m.state = append(m.state, s)
	require.NoError(t, e.Replace(m.span, func(w *SSTWriter) error {
		w.Attach(id, userKey(m, 0))
		for i := range keysPer {
			if err := w.Put(userKey(m, i), rev, []byte("snapshot")); err != nil {
				return err
			}
		}
		return nil
	}, m.applied(), KV{LeaseKey(id), []byte("snapshot")}))
}

func checkAfterCut(t *testing.T, c powerCut, models [replicas]*replicaModel) {
	where := fmt.Sprintf("power cut before %s, %d %% of unsynced data kept", c.op, c.percent)
	e, err := Open(storeDir, Options{FS: c.disk.FS(func(errorfs.Op) {}), CacheBytes: 1 << 20})
	require.NoError(t, err, where)
	defer func() { require.NoError(t, e.Close(), where) }()
	checkModels(t, e, models, c.durable, where)
}

// checkModels requires that each replica has the state after some update, not before a durable one, and returns
// after which.
func checkModels(t *testing.T, e *Engine, models [replicas]*replicaModel, durable [replicas]uint64, where string) (indexes [replicas]uint64) {
	for i, m := range models {
		raw, err := e.Local(m.id, 1, 0)
		require.NoError(t, err, where)
		var index uint64
		if raw != nil {
			index, err = strconv.ParseUint(string(raw), 10, 64)
			require.NoError(t, err, where)
		}
		require.GreaterOrEqual(t, index, durable[i], "replica %d: %s", i, where)
		indexes[i] = index
		want := m.state[index]
		got := dump(t, e.NewReader(), m.span)
		for _, line := range dumpLeases(t, e) {
			id, err := strconv.ParseInt(strings.Split(line, "=")[0], 16, 64)
			require.NoError(t, err)
			if m.span.Contains(shard.HomeKey(id)) {
				got = append(got, line)
			}
		}
		for _, line := range dumpAttached(t, e) {
			_, quoted, _ := strings.Cut(line, " ")
			key, err := strconv.Unquote(quoted)
			require.NoError(t, err)
			if m.span.Contains([]byte(key)) {
				got = append(got, line)
			}
		}
		require.Len(t, got, len(want), "replica %d at index %d: %s", i, index, where)
		for _, line := range got {
			version, value, _ := strings.Cut(line, "=")
			require.Contains(t, want, version, "replica %d at index %d: %s", i, index, where)
			require.Equal(t, want[version], value, "replica %d at index %d: %s", i, index, where)
		}
	}
	for i, m := range models {
		if before, isSnapshot := m.before[indexes[i]]; isSnapshot {
			require.GreaterOrEqual(t, indexes[1-i], before, "replica %d has the snapshot of index %d: %s", i, indexes[i], where)
		}
	}
	return indexes
}
