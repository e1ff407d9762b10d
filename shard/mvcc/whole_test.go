package mvcc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// blind is a reader that sees nothing from some moment on.
type blind struct {
	engine.Reader
	is *bool
}

func (r blind) NewIter(o *pebble.IterOptions) (*pebble.Iterator, error) {
	if *r.is {
		return nil, errors.New("the store was read")
	}
	return r.Reader.NewIter(o)
}

// young is a shard that began with an empty store, and may not read it.
type young struct {
	t     *testing.T
	e     *engine.Engine
	c     *HeaderCache
	w     *Writer
	rev   shard.Revision
	blind bool
}

func newYoung(t *testing.T, budget *HeaderBudget) *young {
	t.Helper()
	e := openEngine(t, vfs.NewMem())
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	y := &young{t: t, e: e, c: NewHeaderCache(budget), rev: 10}
	y.w = NewWriter(blind{e.NewReader(), &y.blind}, y.c)
	t.Cleanup(y.w.Discard)
	require.NoError(t, y.w.Establish(shard.Everything()))
	y.blind = true
	return y
}

func (y *young) write(keys ...string) {
	y.t.Helper()
	y.rev++
	y.w.Begin(y.rev)
	for _, key := range keys {
		found, err := y.w.Find([]byte(key))
		require.NoError(y.t, err)
		require.NoError(y.t, y.w.Put([]byte(key), []byte("v"), 0, found))
	}
}

func (y *young) put(keys ...string) {
	y.t.Helper()
	y.write(keys...)
	b := y.e.NewBatch()
	defer b.Close()
	require.NoError(y.t, y.w.Store(b))
	require.NoError(y.t, y.e.Commit(b))
	y.w.Finish()
}

func (y *young) requireVersion(key string, want int64) {
	y.t.Helper()
	h, exists, err := y.w.Header([]byte(key))
	require.NoError(y.t, err)
	require.Equal(y.t, want > 0, exists, key)
	require.Equal(y.t, want, h.Version, key)
}

// V10: a shard that began with an empty store finds the headers of all its keys, and that others do not exist, without
// reading the store.
func TestAYoungShardDoesNotReadTheStore(t *testing.T) {
	y := newYoung(t, NewHeaderBudget(0, 3, 1<<20))
	for i := range 1000 {
		y.put(fmt.Sprint("key", i))
		y.put(fmt.Sprint("key", i/2))
		y.requireVersion("absent", 0)
	}
	y.requireVersion("key0", 3)
	y.requireVersion("key499", 3)
	y.requireVersion("key999", 1)
	y.write("new", "other", "another", "more")
	y.w.Discard()
	require.False(t, y.c.knowsAll(), "headers had to go while they were to be stored")

	fresh := NewWriter(y.e.NewReader(), NewHeaderCache(NewHeaderBudget(0, 3, 1<<20)))
	require.NoError(t, fresh.Establish(shard.Everything()))
	require.False(t, fresh.cache.knowsAll(), "there are keys")
	require.NoError(t, fresh.Establish(shard.Span{Start: []byte("z")}))
	require.True(t, fresh.cache.knowsAll())
	fresh.Discard()
}

// V10: whatever loses a header is known, so the store is read again.
func TestWhatLosesHeaders(t *testing.T) {
	const room = packedParts * packedBucketBytes
	for name, lose := range map[string]func(y *young){
		"its headers go":        func(y *young) { y.c.Purge() },
		"keys of others come":   func(y *young) { y.c.Widen() },
		"a key that is so long": func(y *young) { y.put(strings.Repeat("k", packedKeyMax+1)); y.put("1", "2", "3", "4") },
		"there is no more room": func(y *young) {
			for i := range 2 * room / 30 {
				y.put(fmt.Sprint("another key ", i))
			}
		},
		"it is to be stored when its key is given away": func(y *young) {
			y.write("x")
			y.c.Keep(shard.Span{End: []byte("k")}, 7)
		},
		"it had to go before that": func(y *young) {
			y.write("1", "2", "3", "4", "5")
			y.c.Keep(shard.Span{End: []byte("k")}, 7)
		},
	} {
		y := newYoung(t, NewHeaderBudget(0, 3, room))
		y.put("a")
		require.True(t, y.c.knowsAll(), name)
		y.blind = false
		lose(y)
		require.False(t, y.c.knowsAll(), name)
	}
	none := newYoung(t, NewHeaderBudget(0, 3, 0))
	none.blind = false
	none.put("1", "2", "3", "4", "5")
	require.False(t, none.c.knowsAll(), "nothing is packed")
}

// V10: a shard that is split off knows all of its keys if its parent did; another one does not.
func TestAnHeirKnowsAll(t *testing.T) {
	budget := NewHeaderBudget(0, 3, 1<<20)
	y := newYoung(t, budget)
	for i := range 26 {
		y.put(string(rune('a' + i)))
	}
	y.c.Keep(shard.Span{End: []byte("m")}, 7)
	heir, other := NewHeaderCache(budget), NewHeaderCache(budget)
	heir.Inherit(7)
	other.Inherit(8)
	require.True(t, y.c.knowsAll())
	require.True(t, heir.knowsAll())
	require.False(t, other.knowsAll())
	y.c, y.w = heir, NewWriter(y.w.r, heir)
	for i := range 26 {
		if key := string(rune('a' + i)); key >= "m" {
			y.requireVersion(key, 1)
			y.put(key)
		}
	}
	y.requireVersion("zz", 0)
}

// V10: while some shards lose headers, others never take a key that they have for one that they do not.
func TestHeadersAreLostBesideOthers(t *testing.T) {
	budget := NewHeaderBudget(0, 1, packedParts*packedBucketBytes)
	var wg sync.WaitGroup
	for i := range 4 {
		c, rng := NewHeaderCache(budget), rand.New(rand.NewPCG(uint64(i), 2))
		c.begin()
		wg.Go(func() {
			written := map[string]bool{}
			for range 50_000 {
				key := fmt.Sprint("a key of some length ", rng.IntN(10_000))
				known := c.get([]byte(key))
				if known == nil {
					known = c.unpack([]byte(key))
				}
				if known == nil && c.knowsAll() && written[key] {
					t.Errorf("%q was lost, and nobody said so", key)
					return
				}
				if known == nil {
					c.add(key, Header{Mod: 5})
				}
				written[key] = true
			}
		})
	}
	wg.Wait()
}

// V10: the store and a model agree while all headers are known, too.
func TestAgainstModelKnowingAll(t *testing.T) {
	t.Logf("replay with: go test ./shard/mvcc -run TestAgainstModelKnowingAll -seed=%d -steps=%d", *seedFlag, *stepsFlag)
	fs := vfs.NewMem()
	p := &player{
		t: t, rng: rand.New(rand.NewPCG(*seedFlag, 9)), fs: fs, e: openEngine(t, fs), young: true,
		cache: NewHeaderCache(NewHeaderBudget(0, 3, packedParts*packedBucketBytes)), trails: NewTrails(2000), m: newModel(), rev: shard.FirstRevision,
	}
	defer func() { require.NoError(t, p.e.Close()) }()
	p.cache.begin()
	for step := range *stepsFlag {
		p.step(step)
	}
	p.fetch(p.e.NewReader(), shard.Everything(), 0, listing.FetchOptions{})
	require.True(t, p.cache.knowsAll())
}
