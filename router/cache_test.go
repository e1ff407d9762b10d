package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

func descriptor(id shard.ID, start, end string, generation uint64, nodes ...shard.NodeID) *shard.Descriptor {
	d := &shard.Descriptor{ID: id, Span: shard.Span{Start: []byte(start), End: []byte(end)}, Epoch: generation, Generation: generation}
	for i, node := range nodes {
		d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(i + 1), Node: node})
	}
	return d
}

// fixedDirectory answers from a list and counts the questions.
type fixedDirectory struct {
	descriptors []*shard.Descriptor
	asked       int
	err         error
}

func (f *fixedDirectory) Lookup(_ context.Context, key []byte) (*shard.Descriptor, error) {
	f.asked++
	if f.err != nil {
		return nil, f.err
	}
	for _, d := range f.descriptors {
		if d.Span.Contains(key) {
			return d, nil
		}
	}
	return f.descriptors[0], nil
}

func lookup(t *testing.T, c *Cache, key string) Place {
	t.Helper()
	p, err := c.Lookup(t.Context(), []byte(key))
	require.NoError(t, err)
	return p
}

func TestCacheAsksOnce(t *testing.T) {
	dir := &fixedDirectory{descriptors: []*shard.Descriptor{descriptor(2, "", "m", 1, 1), descriptor(3, "m", "", 1, 1)}}
	c := NewCache(dir, 8)
	require.Equal(t, shard.ID(2), lookup(t, c, "a").ID)
	require.Equal(t, shard.ID(2), lookup(t, c, "lzzz").ID)
	require.Equal(t, shard.ID(3), lookup(t, c, "m").ID)
	require.Equal(t, 2, dir.asked)

	places, err := c.Cover(t.Context(), shard.Span{Start: []byte("b"), End: []byte("m")})
	require.NoError(t, err)
	require.Len(t, places, 1, "a span that ends where a shard ends does not touch the next one")
	places, err = c.Cover(t.Context(), shard.Everything())
	require.NoError(t, err)
	require.Len(t, places, 2)

	c.Forget(2)
	require.Equal(t, 1, c.Len())
	lookup(t, c, "a")
	require.Equal(t, 3, dir.asked)
}

func TestCacheRefusesAWrongAnswer(t *testing.T) {
	dir := &fixedDirectory{descriptors: []*shard.Descriptor{descriptor(2, "a", "m", 1, 1)}}
	_, err := NewCache(dir, 8).Lookup(t.Context(), []byte("x"))
	require.ErrorIs(t, err, shard.ErrUnavailable)
	dir.err = errors.New("no table yet")
	_, err = NewCache(dir, 8).Lookup(t.Context(), []byte("x"))
	require.ErrorIs(t, err, dir.err)
}

func TestCacheKeepsTheNewerDescriptor(t *testing.T) {
	c := NewCache(&fixedDirectory{}, 8)
	c.Learn(descriptor(2, "", "", 5, 1, 2))
	c.SetLeader(2, 2)
	c.Learn(descriptor(2, "", "m", 4, 1, 3)) // K2: older
	require.Equal(t, uint64(5), lookup(t, c, "z").Generation)

	c.Learn(descriptor(2, "", "m", 6, 1, 2))
	require.Equal(t, shard.NodeID(2), lookup(t, c, "a").Leader, "the leader is still a member")
	c.Learn(descriptor(2, "", "m", 7, 1, 3))
	require.Zero(t, lookup(t, c, "a").Leader, "the leader is no member any more")

	c.Learn(descriptor(3, "c", "", 1, 1)) // K2: another owner
	dir := &fixedDirectory{descriptors: []*shard.Descriptor{descriptor(2, "", "c", 8, 1, 3)}}
	c.directory = dir
	require.Equal(t, shard.ID(3), lookup(t, c, "d").ID)
	require.Equal(t, uint64(8), lookup(t, c, "b").Generation)
	require.Equal(t, 1, dir.asked)

	c.SetLeader(3, 1)
	child := descriptor(9, "x", "", 1, 1, 3)
	child.Parent = 3
	c.Learn(child)
	require.Equal(t, shard.NodeID(1), lookup(t, c, "x").Leader, "who led the keys before they were split off")

	c.SetLeader(99, 1) // an unknown shard has no leader to remember
}

// TestCacheSpansNeverOverlap feeds descriptors at random (K1) into a cache too small
// for them.
func TestCacheSpansNeverOverlap(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			c := NewCache(&fixedDirectory{}, 10)
			for range 500 {
				a, b := rng.IntN(26), rng.IntN(27)
				if a >= b {
					continue
				}
				end := string(rune('a' + b))
				if b == 26 {
					end = ""
				}
				id := shard.ID(2 + rng.IntN(30))
				switch rng.IntN(8) {
				case 0:
					c.Forget(id)
				case 1:
					c.SetLeader(id, 3)
				default:
					c.Learn(descriptor(id, string(rune('a'+a)), end, uint64(1+rng.IntN(50)), 1, 3))
				}
				checkCache(t, c)
			}
		})
	}
}

func checkCache(t *testing.T, c *Cache) {
	t.Helper()
	known := *c.known.Load()
	require.LessOrEqual(t, c.Len(), 10)
	require.Len(t, c.mu.byID, len(known))
	for i, p := range known {
		require.Same(t, p, c.mu.byID[p.ID])
		if i > 0 {
			last := known[i-1]
			require.Negative(t, bytes.Compare(last.Span.Start, p.Span.Start))
			require.False(t, last.Span.Overlaps(p.Span), "%v and %v", last.Span, p.Span)
		}
	}
}

// TestCacheDropsWhatIsNotUsed has more shards than fit, of which some are used all the time.
func TestCacheDropsWhatIsNotUsed(t *testing.T) {
	const size, often = 20, 8
	c := NewCache(&fixedDirectory{}, size)
	key := func(i int) string { return fmt.Sprintf("%04d", i) }
	learn := func(i int) { c.Learn(descriptor(shard.ID(i+1), key(i), key(i+1), 1, 1)) }
	for i := range often {
		learn(i)
	}
	for i := often; i < 10*size; i++ {
		for used := range often {
			_, known := c.find([]byte(key(used)))
			require.True(t, known, "shard %d is used all the time", used)
		}
		learn(i)
		require.Contains(t, c.mu.byID, shard.ID(i+1), "what was just learned")
		require.LessOrEqual(t, c.Len(), size)
	}
	require.Equal(t, size, c.Len())
}

// TestCacheIsSharedByMany has goroutines find shards while others split, merge and move them: what is found owns the key.
func TestCacheIsSharedByMany(t *testing.T) {
	c := NewCache(&fixedDirectory{}, 6)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 7))
			for i := range 3000 {
				a, b := rng.IntN(26), rng.IntN(26)
				key := string(rune('a' + a))
				if p, ok := c.find([]byte(key)); ok && !p.Span.Contains([]byte(key)) {
					t.Errorf("%s was found in %v", key, p.Span)
				}
				switch id := shard.ID(2 + rng.IntN(8)); {
				case a < b:
					c.Learn(descriptor(id, key, string(rune('a'+b)), uint64(i), 1, 3))
				case a == b:
					c.Forget(id)
				default:
					c.SetLeader(id, 3)
				}
			}
		})
	}
	wg.Wait()
	checkCache(t, c)
}

func BenchmarkCacheFind(b *testing.B) {
	for _, shards := range []int{1, 8, 1024} {
		b.Run(fmt.Sprint(shards), func(b *testing.B) {
			c := NewCache(&fixedDirectory{}, 4096)
			keys := make([][]byte, shards)
			for i := range shards {
				keys[i] = fmt.Appendf(nil, "bench/%04d", i)
				c.Learn(descriptor(shard.ID(i+1), string(keys[i]), fmt.Sprintf("bench/%04d", i+1), 1, 1))
			}
			for i := 0; b.Loop(); i++ {
				if _, ok := c.find(keys[i*7919%shards]); !ok {
					b.Fatal("not found")
				}
			}
		})
	}
}
