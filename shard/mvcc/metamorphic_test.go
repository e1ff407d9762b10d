package mvcc

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

var (
	seedFlag  = flag.Uint64("seed", 1, "of the random tests")
	stepsFlag = flag.Int("steps", 1500, "of the random tests")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// storeDir is where tests keep their store, in a file system in memory.
const storeDir = "store"

func openEngine(t testing.TB, fs vfs.FS) *engine.Engine {
	t.Helper()
	e, err := engine.Open(storeDir, engine.Options{FS: fs, CacheBytes: 8 << 20})
	require.NoError(t, err)
	return e
}

// player does the same random things to a store and to a model and compares all it
// reads. Keys are few and revisions dense, so that everything meets everything.
type player struct {
	t   *testing.T
	rng *rand.Rand
	fs  vfs.FS
	e   *engine.Engine

	cache     *HeaderCache
	sealed    *Sealed // of the Writer, nil for nothing
	trails    *Trails // of a few dozen changes each, so that they are cut
	m         *model
	rev       shard.Revision
	compacted shard.Revision
	// young: nothing happens by which the cache would lose headers.
	young bool
	// collected is what the whole keyspace was last collected up to.
	collected shard.Revision
}

func TestAgainstModel(t *testing.T) {
	t.Logf("replay with: go test ./shard/mvcc -run TestAgainstModel -seed=%d -steps=%d", *seedFlag, *stepsFlag)
	fs := vfs.NewMem()
	p := &player{
		t: t, rng: rand.New(rand.NewPCG(*seedFlag, 7)), fs: fs, e: openEngine(t, fs),
		cache: NewHeaderCache(NewHeaderBudget(0, 3, packedParts*packedBucketBytes)), trails: NewTrails(2000), m: newModel(), rev: shard.FirstRevision,
	}
	defer func() { require.NoError(t, p.e.Close()) }()
	p.cache.begin() // it knows all until it loses something
	for step := range *stepsFlag {
		p.step(step)
	}
	p.fetch(p.e.NewReader(), shard.Everything(), 0, listing.FetchOptions{})
	p.events(shard.Everything(), p.compacted-1, p.rev, 0)
}

func (p *player) step(n int) {
	switch k := p.rng.IntN(100); {
	case k < 45:
		p.update()
	case k < 70:
		p.fetch(p.e.NewReader(), p.span(), p.readable(), p.options())
	case k < 80:
		from := p.compacted - 1 + shard.Revision(p.rng.IntN(int(p.rev-p.compacted)+2))
		p.events(p.span(), from, min(p.rev, from+shard.Revision(p.rng.IntN(int(p.rev-from)+3))), p.rng.IntN(4))
	case k < 85:
		p.compacted += shard.Revision(p.rng.IntN(int(p.rev-p.compacted) + 1))
	case k < 91:
		p.collect()
	case k < 95:
		p.collectAll()
	case k < 97 && !p.young:
		p.moveAndBack()
	case n%5 == 0: // the memtable becomes a table
		require.NoError(p.t, p.e.Close())
		p.e = openEngine(p.t, p.fs)
	}
}

func (p *player) key() []byte {
	keys := []string{"a", "a\x00", "aa", "b", "b\x00\x09", "c/1", "c/2", "c/3", "d", "\xff"}
	return []byte(keys[p.rng.IntN(len(keys))])
}

func (p *player) span() shard.Span {
	switch p.rng.IntN(5) {
	case 0:
		return shard.Everything()
	case 1, 2:
		return shard.PointSpan(p.key())
	case 3:
		return shard.Span{Start: p.key()}
	default:
		return shard.Span{Start: p.key(), End: p.key()}
	}
}

// readable is a revision a caller may read at, often the newest.
func (p *player) readable() shard.Revision {
	if p.rng.IntN(3) == 0 {
		return 0
	}
	return max(1, p.compacted) + shard.Revision(p.rng.IntN(int(p.rev-max(1, p.compacted))+2))
}

func (p *player) options() listing.FetchOptions {
	o := listing.FetchOptions{Limit: int64(p.rng.IntN(5)), KeysOnly: p.rng.IntN(4) == 0, CountOnly: p.rng.IntN(6) == 0, NoCount: p.rng.IntN(3) == 0}
	if p.rng.IntN(3) == 0 {
		o.Bytes = int64(1 + p.rng.IntN(600))
	}
	return o
}

// update is a few Raft updates of a few transactions that are stored together, sometimes never
// committed. Sometimes the first of them are sealed, and stored while others go on.
func (p *player) update() {
	before, rev := p.m.clone(), p.rev
	w, sealed := NewWriter(p.e.NewReader(), p.cache), false
	for range 1 + p.rng.IntN(5) {
		for range 1 + p.rng.IntN(4) {
			p.transaction(w)
		}
		w.Pause()
		require.Empty(p.t, w.Changed())
		if p.rng.IntN(3) == 0 {
			p.settle(w)
			p.sealed, sealed = w.Seal(), true
			require.Zero(p.t, w.Size())
		}
	}
	if !sealed && !p.young && p.rng.IntN(8) == 0 {
		w.Discard()
		p.m, p.rev = before, rev
		return
	}
	p.settle(w)
	p.commit(w.Store)
	w.Finish()
	require.Zero(p.t, w.Size())
	require.LessOrEqual(p.t, p.cache.Len(), 3)
	require.Empty(p.t, p.cache.displaced)
}

func (p *player) commit(store func(*pebble.Batch) error) {
	b := p.e.NewBatch()
	defer b.Close()
	require.NoError(p.t, store(b))
	require.NoError(p.t, p.e.Commit(b))
}

// storeSealed is what another goroutine would do, at some moment.
func (p *player) storeSealed() {
	if p.sealed != nil && !p.sealed.Ended() {
		p.commit(p.sealed.Store)
		p.sealed.End(nil)
	}
}

func (p *player) settle(w *Writer) {
	if p.sealed != nil {
		p.storeSealed()
		w.Settle()
		p.sealed = nil
	}
}

func (p *player) transaction(w *Writer) {
	if p.rng.IntN(4) == 0 {
		p.storeSealed()
	}
	p.rev += 1 + shard.Revision(p.rng.IntN(3))
	w.Begin(p.rev)
	written := map[string]bool{}
	var sub uint32
	for range 1 + p.rng.IntN(4) {
		key := p.key()
		found := p.find(w, key)
		switch {
		case p.rng.IntN(3) == 0:
			p.fetchFrom(w, p.span(), p.readable(), p.options())
			kv, err := w.Get(key)
			require.NoError(p.t, err)
			p.same(p.m.keyValue(string(key), latest), kv)
		case written[string(key)]:
			require.ErrorIs(p.t, w.Put(key, nil, 0, found), shard.ErrCorrupt, "a key is written once per revision")
		case !found.Exists || p.rng.IntN(3) > 0:
			value, lease := fmt.Sprintf("%d.%d", p.rev, sub), int64(p.rng.IntN(3))
			if p.rng.IntN(10) == 0 {
				value = ""
			}
			require.NoError(p.t, w.Put(key, []byte(value), lease, found))
			p.m.put(string(key), value, lease, p.rev, sub)
			written[string(key)] = true
			sub++
		default:
			require.NoError(p.t, w.Delete(key))
			p.m.delete(string(key), p.rev, sub)
			written[string(key)] = true
			sub++
		}
	}
	p.changed(w, sub)
}

func (p *player) find(w *Writer, key []byte) Found {
	if p.rng.IntN(3) == 0 { // changes nothing
		w.Approach([][]byte{key, []byte("absent"), nil, key})
	}
	found, err := w.Find(key)
	require.NoError(p.t, err)
	h, v := found.Header, p.m.at(string(key), latest)
	if v == nil || v.Deleted { // a collected tombstone reads as no version at all
		require.False(p.t, found.Exists, "%q", key)
		require.True(p.t, h == Header{} || v != nil && h == v.found(), "%q: %+v", key, h)
		return found
	}
	require.True(p.t, found.Exists, "%q", key)
	require.Equal(p.t, v.found(), h, "%q", key)
	return found
}

func (p *player) changed(w *Writer, n uint32) {
	require.Len(p.t, w.Changed(), int(n))
	for i, c := range w.Changed() {
		v := p.m.at(string(c.Key), p.rev)
		require.Equal(p.t, v.Header, c.Header)
		require.EqualValues(p.t, i, c.Header.Sub)
		require.Equal(p.t, v.value, string(c.Value))
		before := p.m.at(string(c.Key), p.rev-1)
		require.Equal(p.t, before != nil && !before.Deleted, c.Existed)
		if c.Existed {
			require.Equal(p.t, before.found(), c.Prev)
		}
		prev, err := w.Previous(&c)
		require.NoError(p.t, err)
		p.same(p.m.keyValue(string(c.Key), p.rev-1), prev)
	}
}

func (p *player) fetch(r engine.Reader, s shard.Span, at shard.Revision, o listing.FetchOptions) {
	got, err := Fetch(r, s, at, o)
	require.NoError(p.t, err)
	p.sameFetched(s, at, o, got)
}

func (p *player) fetchFrom(w *Writer, s shard.Span, at shard.Revision, o listing.FetchOptions) {
	if _, point := pointOf(s); !point {
		p.storeSealed() // Fetch waits for it
	}
	got, err := w.Fetch(s, at, o)
	require.NoError(p.t, err)
	p.sameFetched(s, at, o, got)
}

func (p *player) sameFetched(s shard.Span, at shard.Revision, o listing.FetchOptions, got listing.Fetched) {
	want := p.m.fetch(s, at, o)
	what := fmt.Sprintf("%s at %d of %d (compacted %d) %+v", s, at, p.rev, p.compacted, o)
	require.Equal(p.t, want.Count, got.Count, what)
	require.Len(p.t, got.KVs, len(want.KVs), what)
	if _, point := pointOf(s); !point { // of one key nothing is left to look at
		require.Equal(p.t, want.More, got.More, what)
	}
	for i := range want.KVs {
		p.same(want.KVs[i], got.KVs[i])
	}
}

func (p *player) same(want, got *mvccpb.KeyValue) {
	require.Equal(p.t, want == nil, got == nil, "want %v, got %v", want, got)
	require.True(p.t, want == nil || proto.Equal(want, got), "want %v, got %v", want, got)
}

func (p *player) events(s shard.Span, from, to shard.Revision, limit int) {
	prev := p.rng.IntN(2) == 0
	got, through, err := p.trails.Events(p.e.NewReader(), s, from, to, EventsOptions{Limit: limit, PrevKV: prev}, func() error { return nil })
	require.NoError(p.t, err)
	what := fmt.Sprintf("%s in (%d, %d] (compacted %d) limit %d", s, from, to, p.compacted, limit)
	require.LessOrEqual(p.t, through, to, what)
	if from < to {
		require.Greater(p.t, through, from, what)
	}
	want := p.m.events(s, from, through, prev)
	require.Len(p.t, got, len(want), what)
	for i := range want {
		require.True(p.t, proto.Equal(want[i], got[i]), "%s: want %v, got %v", what, want[i], got[i])
	}
}

// collect runs a few steps, or all of them, at the compacted revision.
func (p *player) collect() {
	p.collectSteps(p.span(), 0, 1+p.rng.IntN(40))
}

// collectAll goes on from what was collected before, and leaves nothing that a walk over
// every key would still find.
func (p *player) collectAll() {
	p.collectSteps(shard.Everything(), p.collected, math.MaxInt)
	p.collected = p.compacted
	require.Zero(p.t, p.collectSteps(shard.Everything(), 0, math.MaxInt), "garbage below %s was overlooked", p.compacted)
}

func (p *player) collectSteps(s shard.Span, since shard.Revision, steps int) (dropped int) {
	limits := CollectLimits{Versions: p.rng.IntN(6), Drops: p.rng.IntN(4), Singles: p.rng.IntN(4)}
	sum := checksum(p.t, p.e.NewReader(), shard.Everything(), p.compacted, 100).Sum
	defer func() {
		require.Equal(p.t, sum, checksum(p.t, p.e.NewReader(), shard.Everything(), p.compacted, 100).Sum, "nobody can tell")
	}()
	var from []byte
	for range steps {
		b := p.e.NewBatch()
		done, err := Collect(p.e.NewReader(), b, s, since, p.compacted, from, limits)
		require.NoError(p.t, err)
		require.EqualValues(p.t, done.Dropped+done.Histories, b.Count())
		require.NoError(p.t, p.e.Commit(b))
		require.NoError(p.t, b.Close())
		dropped += done.Dropped + done.Histories
		if done.Next == nil {
			return dropped
		}
		require.True(p.t, bytes.Compare(done.Next, from) > 0 || done.Dropped > 0, "a step makes progress")
		from = done.Next
	}
	return dropped
}

// moveAndBack sends a snapshot of a span to itself through bytes.
func (p *player) moveAndBack() {
	s := p.span()
	if s.Empty() {
		return
	}
	var stream bytes.Buffer
	view := p.e.NewView(s)
	require.NoError(p.t, WriteSnapshot(&stream, view, func(read func()) { read() }, s, []byte("state"), nil))
	require.NoError(p.t, view.Close())
	require.NoError(p.t, Restore(p.e, &stream, nil, func(state []byte) (shard.Span, []engine.KV, error) {
		require.Equal(p.t, "state", string(state))
		return s, []engine.KV{{Key: engine.LocalKey(2, 1, 0), Value: state}}, nil
	}, always))
	p.cache.Purge()
}
