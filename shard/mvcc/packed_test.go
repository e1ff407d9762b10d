package mvcc

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// What is taken out is what was put in last, once, whatever was overwritten meanwhile, and
// nobody else's.
func TestPackedAgainstMap(t *testing.T) {
	t.Logf("replay with: go test ./shard/mvcc -run TestPackedAgainstMap -seed=%d -steps=%d", *seedFlag, *stepsFlag)
	rng := rand.New(rand.NewPCG(*seedFlag, 11))
	for _, buckets := range []int{0, 1, 3, 100} {
		p := newPacked(buckets * packedParts * packedBucketBytes)
		owners := []uint64{p.owner(), p.owner(), 1 << 60}
		last := map[string]Header{}
		found, missed := 0, 0
		for range 100 * *stepsFlag {
			owner := owners[rng.IntN(len(owners))]
			key := randomPackedKey(rng)
			id := fmt.Sprint(owner, key)
			if rng.IntN(2) == 0 {
				h := randomHeader(rng)
				p.put(owner, key, h)
				last[id] = h
				continue
			}
			h, ok := p.take(owner, []byte(key))
			want, put := last[id]
			if ok {
				require.True(t, put, "%q was not put", key)
				require.Equal(t, want, h, "%q", key)
				found++
			} else if put {
				missed++
			}
			delete(last, id)
		}
		t.Logf("%d buckets: %d found, %d had to go, %d bytes", buckets, found, missed, p.bytes.Load())
		require.Equal(t, buckets > 0, found > 0)
		require.True(t, missed > 0 || buckets != 1)
		require.LessOrEqual(t, p.bytes.Load(), int64(buckets*packedParts*packedBucketBytes))
	}
}

func randomPackedKey(rng *rand.Rand) string {
	key := fmt.Sprint(rng.IntN(20_000))
	if rng.IntN(50) == 0 {
		key = strings.Repeat(key, packedKeyMax)
	}
	return key[:rng.IntN(min(len(key), packedKeyMax+3)+1)]
}

func randomHeader(rng *rand.Rand) Header {
	switch rng.IntN(5) {
	case 0:
		return Header{}
	case 1:
		rev := shard.Revision(1 + rng.Int64N(math.MaxInt64))
		return Header{Create: rev, Mod: rev, Version: 1}
	case 2:
		return Header{Mod: shard.Revision(1 + rng.Int64N(math.MaxInt64)), Deleted: true}
	default:
		create := shard.Revision(1 + rng.Int64N(math.MaxInt64))
		return Header{
			Create: create, Mod: create + shard.Revision(rng.Int64N(int64(math.MaxInt64-create)+1)),
			Version: rng.Int64(), Lease: int64(rng.Uint64()),
		}
	}
}

// The room is used: nearly all of the headers are there that were put last.
func TestPackedKeepsTheNewest(t *testing.T) {
	const room, perHeader = 2 << 20, 56
	p := newPacked(room)
	owner := p.owner()
	key := func(i int) string { return fmt.Sprintf("/registry/pods/ns/%012d", i) } // 30 bytes
	n := 2 * room / perHeader
	for i := range n {
		rev := shard.Revision(1e15 + i)
		p.put(owner, key(i), Header{Create: rev - 1e9, Mod: rev, Version: 3})
	}
	require.LessOrEqual(t, p.bytes.Load(), int64(room))
	found := 0
	for i := n - room/perHeader*3/4; i < n; i++ {
		if _, ok := p.take(owner, []byte(key(i))); ok {
			found++
		}
	}
	require.Greater(t, found, room/perHeader*3/4*95/100)
}

// A few headers take little of the room.
func TestPackedGrows(t *testing.T) {
	p := newPacked(64 << 20)
	owner := p.owner()
	const headers = 10_000
	for i := range headers {
		p.put(owner, fmt.Sprint("key", i), Header{Create: 1, Mod: 2, Version: 1})
	}
	require.Less(t, p.bytes.Load(), int64(1<<20))
	for i := range headers {
		_, ok := p.take(owner, fmt.Append(nil, "key", i))
		require.True(t, ok)
	}
}
