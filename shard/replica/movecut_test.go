package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/powercut"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// Here one node has a shard, and keeps few entries of its log. Another one follows, is away until only a snapshot
// helps, loses its replica and gets a new one, and loses power before any operation of its disk, again and again. Whenever it
// has caught up it has each version that the first one has, and no other.

const followerAddr = "n8:1"

// cutFollower is the second node, from one cut to the next.
type cutFollower struct {
	outage
	from *process // who has the shard
	wire *wire
	end  *wireEnd
	*moves
}

// moves is what the placement table would say of the follower's replica.
type moves struct {
	replica shard.ReplicaID   // 0 for none yet
	gone    []shard.ReplicaID // all before it: each may still be there after a cut
	puts    int
}

func (f *cutFollower) before(op errorfs.Op) {
	if !f.due(op) {
		return
	}
	f.wire.cut(f.end) // what it says after the copy nobody must rest on
	f.cutPower(op)
}

func TestPowerCutsOfAFollower(t *testing.T) {
	t.Parallel()
	t.Logf("replay with: go test ./shard/replica -run TestPowerCutsOfAFollower -seed=%d -lives=%d", *seed, *lives)
	t.Run("only what was synced survives", func(t *testing.T) { playFollower(t, powercut.New(false), 0) })
	t.Run("some of the rest survives", func(t *testing.T) { playFollower(t, powercut.New(true), 50) })
}

func playFollower(t *testing.T, disk *powercut.Disk, percent int) {
	rng := rand.New(rand.NewPCG(*seed, uint64(percent)))
	w := newWire()
	p := openProcessWith(t, t.TempDir(), 1, func(c *HostConfig) {
		c.Raft.LogEntries, c.Raft.Transport, c.Raft.TickInterval = 40, w.end(c.Raft.Address), 5*time.Millisecond
	})
	defer p.close()
	p.startNew()
	m := &moves{}
	for n := range *lives {
		f := &cutFollower{outage: outage{t: t, rng: rng, disk: disk, percent: percent}, from: p, wire: w, moves: m}
		f.expect([]string{"", "store/", "snapshot-", "incoming/"}, map[string]int64{"": 1000, "store/": 300, "snapshot-": 60, "incoming/": 12})
		f.live(uint64(n) + 2)
		disk = f.after
		t.Logf("life %d ended before %s; replica %d, %d puts", n, f.cutBefore, m.replica, m.puts)
	}
}

func (f *cutFollower) live(incarnation uint64) {
	f.end = f.wire.end(followerAddr)
	f.boot(testNode+1, followerAddr, incarnation, f.end, f.before)
	defer f.halt()
	for f.follow() {
		switch f.rng.IntN(5) {
		case 0:
			f.move()
		case 1: // until its log does not lead here any more
			f.wire.unplug(f.end)
			f.put(60)
			f.wire.plug(f.end)
		default:
			f.put(f.rng.IntN(30))
		}
	}
}

func (f *cutFollower) put(puts int) {
	for range puts {
		f.puts++
		f.from.put(fmt.Sprint("k", f.rng.IntN(20)), strings.Repeat("v", f.rng.IntN(2000)))
	}
}

// move has the group dismiss the replica, whose place another one takes.
func (f *cutFollower) move() {
	if f.replica != 0 {
		require.NoError(f.t, f.from.replica.Dismiss(f.deadline(), f.replica))
		f.gone = append(f.gone, f.replica)
	}
	f.replica = max(f.replica, testReplica) + 1
	require.NoError(f.t, f.from.replica.AddLearner(f.deadline(), f.replica, followerAddr))
}

// deadline is for what the first node does, whose power is not cut.
func (f *cutFollower) deadline() context.Context {
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	f.t.Cleanup(cancel)
	return ctx
}

// follow does what the table says, and requires the same here as there; false when the power was cut.
func (f *cutFollower) follow() bool {
	for _, id := range f.gone {
		if !f.done(func() error { return f.host.Remove(f.ctx, testShard, id) }) {
			return false
		}
	}
	if f.replica == 0 {
		return f.ctx.Err() == nil
	}
	if !f.done(func() error { return f.host.Join(testShard, f.replica, true) }) {
		return false
	}
	r, ok := f.host.Replica(testShard)
	require.True(f.t, ok)
	require.Equal(f.t, f.replica, r.ReplicaID())
	want := f.from.replica.View()
	for deadline := time.Now().Add(patience); r.View().Applied < want.Applied || r.View().Rev < want.Rev; {
		require.True(f.t, time.Now().Before(deadline), "it does not catch up: %+v, the first one has %+v", r.View(), want)
		require.Empty(f.t, r.Unfit())
		select {
		case <-f.ctx.Done():
			return false
		case <-time.After(time.Millisecond):
		}
	}
	var got []string
	list := func() (err error) {
		got, err = versions(f.engine)
		return err
	}
	if !f.done(r.machine.Store, f.from.replica.machine.Store, list) {
		return false
	}
	all, err := versions(f.from.engine)
	require.NoError(f.t, err)
	require.Equal(f.t, all, got)
	return true
}

// versions lists all versions of keys in a store.
func versions(e *engine.Engine) (all []string, err error) {
	lower, upper := engine.DataSpanBounds(shard.Everything())
	it, err := e.NewReader().NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		key, rev, _ := engine.DecodeDataKey(it.Key())
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		all = append(all, fmt.Sprintf("%s@%d %d bytes", key, rev, len(value)))
	}
	return all, it.Error()
}
