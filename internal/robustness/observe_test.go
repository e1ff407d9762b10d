package robustness

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// owns is a shard as nodes tell of it.
func owns(id shard.ID, start, end string, epoch uint64) *shard.Descriptor {
	d := &shard.Descriptor{ID: id, Epoch: epoch}
	d.Span.Start, d.Span.End = []byte(start), []byte(end)
	return d
}

// told is an update of a map.
func told(version uint64, whole bool, shards ...*shard.Descriptor) *routerpb.ShardsUpdate {
	u := &routerpb.ShardsUpdate{Version: version, ClusterId: 7, Whole: whole}
	for _, d := range shards {
		u.Shards = append(u.Shards, d.Proto())
	}
	return u
}

// Every map that nodes may tell of in a cluster's life is taken for right, and what came and
// went is counted.
func TestAChartFollowsSplitsAndMerges(t *testing.T) {
	c := &chart{}
	splits, merges := 0, 0
	take := func(u *routerpb.ShardsUpdate) {
		t.Helper()
		next, err := c.take(u)
		require.NoError(t, err)
		if c.version > 0 {
			splits, merges = splits+next.without(c), merges+c.without(next)
		}
		c = next
	}
	take(told(1, true, owns(2, "", "m", 1), owns(3, "m", "", 1)))
	take(told(2, false))
	take(told(3, false, owns(3, "m", "t", 2), owns(4, "t", "", 2)))
	take(told(5, false, owns(2, "", "t", 3)))
	require.Len(t, c.shards, 2)
	take(told(9, true, owns(2, "", "", 4)))
	require.Equal(t, []int{1, 2}, []int{splits, merges})
}

func TestAChartSeesWhatMustNotBe(t *testing.T) {
	begin, err := (&chart{}).take(told(1, true, owns(2, "", "m", 5), owns(3, "m", "", 5)))
	require.NoError(t, err)
	other := told(2, true, owns(2, "", "", 6))
	other.ClusterId = 8
	for want, u := range map[string]*routerpb.ShardsUpdate{
		`shard 3 owns`:                     told(2, false, owns(2, "", "k", 6)),
		`shard 4 owns`:                     told(2, true, owns(2, "", "m", 6), owns(4, "l", "", 6)),
		`the one before it ends at ""`:     told(2, true, owns(2, "b", "", 6)),
		`the last of 1 shards ends at "y"`: told(2, true, owns(2, "", "y", 6)),
		`the last of 0 shards`:             told(2, true),
		`after shard 2 owned ["", "m")`:    told(2, false, owns(2, "", "", 5)),
		`at epoch 4, after shard 2 owned`:  told(2, false, owns(2, "", "m", 4)),
		`of cluster 8`:                     other,
	} {
		_, err := begin.take(u)
		require.ErrorContains(t, err, want)
	}
}
