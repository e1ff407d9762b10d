package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/shard"
)

// The story of a cluster that keeps history for an hour.
func TestRetention(t *testing.T) {
	began := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(after time.Duration) shard.Revision { return shard.TickAt(began.Add(after)).Revision() }
	r := retention{keep: time.Hour, margin: 500 * time.Millisecond}
	var compacted shard.Revision
	look := func(after time.Duration, seen shard.Revision) shard.Revision {
		r.note(began.Add(after), seen)
		rev, due := r.due(began.Add(after), compacted)
		require.Equal(t, due, rev != 0)
		return rev
	}
	const minute = time.Minute
	require.Zero(t, look(0, shard.FirstRevision), "never written")
	require.Zero(t, look(3*time.Hour, shard.FirstRevision))
	r.looked = time.Time{}

	require.Zero(t, look(0, at(0)))
	require.Zero(t, look(5*minute, at(5*minute)), "less than a tenth of the time later: not remembered")
	require.Zero(t, look(7*minute, at(7*minute)))
	require.Zero(t, look(60*minute, at(8*minute)), "the oldest is an hour old, but clocks differ")
	require.Equal(t, at(0), look(61*minute, at(8*minute)))
	require.Equal(t, at(0), look(66*minute, at(8*minute)), "until it has been compacted")
	require.Equal(t, at(7*minute), look(68*minute, at(8*minute)))
	compacted = at(7 * minute)
	require.Zero(t, look(68*minute, at(8*minute)))
	require.Equal(t, at(8*minute), look(69*minute, at(8*minute)), "the last write")
	compacted = at(8 * minute)
	for after := 70 * minute; after < 50*time.Hour; after += minute {
		require.Zero(t, look(after, at(8*minute)), "nothing was written since")
	}

	// A write after a long silence: nothing is old, until it is.
	require.Zero(t, look(50*time.Hour, at(50*time.Hour)))
	require.Zero(t, look(50*time.Hour+59*minute, at(50*time.Hour)))
	require.Equal(t, at(50*time.Hour), look(50*time.Hour+61*minute, at(50*time.Hour)))
	compacted = at(51 * time.Hour)
	require.Zero(t, look(52*time.Hour, at(50*time.Hour)), "somebody has compacted more than that")
	require.Empty(t, r.written)
}

// What most clocks have passed does not depend on any that is wrong.
func TestAgreedTime(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const never = -1000 * time.Hour // no answer yet
	for _, c := range []struct {
		name string
		own  time.Duration
		peer []time.Duration
		want time.Duration
	}{
		{"alone", 3, nil, 3},
		{"of two both", 3, []time.Duration{1}, 1},
		{"this one is ahead", time.Hour, []time.Duration{2, 1}, 2},
		{"this one is behind", -time.Hour, []time.Duration{2, 1}, 1},
		{"another is ahead", 3, []time.Duration{time.Hour, 2}, 3},
		{"another is down", 3, []time.Duration{never, 2}, 2},
		{"others are down", 3, []time.Duration{never, never}, never},
		{"two of four are ahead", time.Hour, []time.Duration{time.Hour, 1, 2}, 2},
		{"two of five are ahead", time.Hour, []time.Duration{time.Hour, 1, 2, 3}, 3},
	} {
		w := newHealth(&Node{cfg: Config{Clock: fixedClock{now.Add(c.own)}}})
		for i, offset := range c.peer {
			var h peerHealth
			if offset != never {
				h.clock = now.Add(offset)
			}
			w.mu.peers[shard.NodeID(i+2)] = h
		}
		got, ok := w.agreedTime()
		require.Equal(t, c.want != never, ok, c.name)
		if ok {
			require.Equal(t, now.Add(c.want), got, c.name)
		}
	}
}

type fixedClock struct{ now time.Time }

var _ clock.Clock = fixedClock{}

func (c fixedClock) Now() time.Time { return c.now }
