package engine

import (
	"context"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
)

func TestReadAmp(t *testing.T) {
	const megabyte = 1 << 20
	enough := int64(megabyte / lookBytes)
	type step struct {
		looks     int64 // since the step before
		sublevels int
		tooLong   bool
	}
	for story, steps := range map[string][]step{
		"nobody reads":                                    {{0, 20, false}, {0, 32, false}},
		"as soon as looks have cost enough":               {{enough - 1, 20, false}, {1, 20, true}},
		"each compaction is paid for by looks of its own": {{2 * enough, 20, true}, {0, 20, false}, {enough / 2, 20, false}, {enough / 2, 20, true}},
		"looks into the levels below are no reason":       {{10 * enough, readAmpMin - 1, false}, {10 * enough, 0, false}, {1, readAmpMin, false}},
	} {
		t.Run(story, func(t *testing.T) {
			var r readAmp
			seen := int64(0)
			for i, s := range steps {
				seen += s.looks
				require.Equal(t, s.tooLong, r.tooLong(seen, s.sublevels, megabyte), i)
			}
		})
	}
}

func TestDeepest(t *testing.T) {
	table := func(first, last string) (t pebble.SSTableInfo) {
		t.Smallest.UserKey, t.Largest.UserKey = DataKey([]byte(first), 9), DataKey([]byte(last), 1)
		return t
	}
	require.Nil(t, deepest(nil))
	require.Equal(t, DataPrefix([]byte("m")), deepest([]pebble.SSTableInfo{
		table("a", "b"), table("a", "z"), table("m", "p"), table("c", "m"), table("n", "n"),
	}), "where one ends and another begins")
}

// What reads looked into while it was being compacted is gone afterwards, and pays for no further compaction.
func TestLooksDuringACompactionDoNotCount(t *testing.T) {
	const bytes = 1 << 20
	var r readAmp
	require.True(t, r.tooLong(bytes/lookBytes, 20, bytes))
	r.compacted(10 * bytes / lookBytes)
	require.False(t, r.tooLong(10*bytes/lookBytes, readAmpMin, bytes))
	require.True(t, r.tooLong(11*bytes/lookBytes, readAmpMin, bytes))
}

// lookFor has reads look into the store for keys that it does not have.
func (l *littered) lookFor(keys int) {
	l.t.Helper()
	it, err := l.NewReader().NewIter(nil)
	require.NoError(l.t, err)
	for i := range keys {
		require.False(l.t, it.SeekPrefixGE(DataKey(fmt.Appendf(nil, "k%03dx", i%litteredKeys), l.next)))
	}
	require.NoError(l.t, it.Close())
}

func (l *littered) shorten(ctx context.Context) bool {
	l.t.Helper()
	done, err := l.ShortenReads(ctx)
	require.NoError(l.t, err)
	return done
}

func (l *littered) sublevels() int { return int(l.Metrics().Levels[0].Sublevels) }

// Reads that find many tables of L0 in their way have it compacted; writes do not, and afterwards nothing is in the way.
func TestShortenReads(t *testing.T) {
	l := newLittered(t)
	for range 20 {
		l.write(500) // and levels below
	}
	l.alone = true
	l.reopen()
	grow := func() {
		t.Helper()
		for range 6 {
			l.write(100)
			require.NoError(t, l.Sync())
		}
		require.GreaterOrEqual(t, l.sublevels(), 6)
	}
	grow()
	require.False(t, l.shorten(t.Context()), "nobody has read")
	l.lookFor(10)
	require.False(t, l.shorten(t.Context()), "ten reads are not worth it")

	l.lookFor(5000)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := l.ShortenReads(cancelled)
	require.ErrorIs(t, err, context.Canceled)
	l.check()

	grow() // the compaction may have ended nevertheless
	l.lookFor(5000)
	require.True(t, l.shorten(t.Context()))
	require.Zero(t, l.sublevels())
	l.check()
	l.lookFor(5000)
	require.False(t, l.shorten(t.Context()), "nothing is left to be shortened")
	l.reopen()
	l.check()
}
