package apply_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// newFleet is a node with many shards that share a Backlog. Shard i has the keys that begin
// with letter(i).
func newFleet(t testing.TB, b *apply.Backlog, shards int) *fixture {
	return newFixture(t).fleet(b, shards)
}

// fleet opens the machines, new or not.
func (f *fixture) fleet(b *apply.Backlog, shards int) *fixture {
	for i := range shards {
		f.id = fleetShard(i)
		f.machine = f.opened(f.id, b)
		f.aside[f.id] = f.machine
		f.index = f.machine.View().Applied
		if f.index > 0 {
			continue
		}
		require.NoError(f.t, f.apply(fleetStart(i))[0].Err)
	}
	return f
}

func fleetStart(i int) *shardpb.Command {
	start := initCommand(shard.Span{Start: []byte(letter(i)), End: []byte(letter(i + 1))})
	start.Descriptor_.ShardId = uint64(fleetShard(i))
	return start
}

func fleetShard(i int) shard.ID { return testShard + shard.ID(i) }

func letter(i int) string { return string(rune('a' + i)) }

// put writes a key of the shard at hand.
func (f *fixture) putTo(i int, key string) {
	f.turn(fleetShard(i))
	require.NoError(f.t, f.put(letter(i)+key, fmt.Sprint(f.index)).Err)
}

func (f *fixture) behind(i int) uint64 {
	return f.aside[fleetShard(i)].View().Applied - f.storedIndex(fleetShard(i))
}

// Much that is kept is stored of all shards at once, also of those that have kept little, and
// for long. What all keep together is bounded.
func TestGatheringIsOfAllShards(t *testing.T) {
	const shards, room = 5, 20_000
	b := apply.NewBacklog(room, func(gather func()) { gather() })
	f := newFleet(t, b, shards)
	f.putTo(0, "long ago")
	require.EqualValues(t, 1, f.behind(0))
	gathered := 0
	for i := range 200 {
		f.putTo(1+i%(shards-1), fmt.Sprint(i))
		taken, kept := b.Taken()
		require.LessOrEqual(t, taken, int64(room))
		require.Equal(t, taken, kept, "nothing is on its way")
		if kept > 0 {
			continue
		}
		gathered++
		for s := range shards {
			require.Zero(t, f.behind(s))
		}
	}
	require.Greater(t, gathered, 3)
	require.Less(t, gathered, 20, "not after every update")
}

// What one machine has kept is stored aside, alone, and it goes on meanwhile. What others gather waits for that,
// and it for what they gather.
func TestOneIsStoredAside(t *testing.T) {
	b := apply.NewBacklog(20_000, never)
	f := newFleet(t, b, 2)
	f.putTo(0, "a")
	f.putTo(1, "b")
	one := f.aside[fleetShard(0)]
	require.NoError(t, one.StoreAside())
	require.Zero(t, f.behind(0))
	require.EqualValues(t, 1, f.behind(1))
	require.NoError(t, one.StoreAside(), "nothing is kept")

	b.Gather() // and does not end
	f.putTo(0, "c")
	stored := make(chan error)
	go func() { stored <- one.StoreAside() }()
	f.putTo(0, "d")
	b.EndTurn()
	require.NoError(t, <-stored)
	require.LessOrEqual(t, f.behind(0), uint64(1))
}

// Nodes that apply the same do not gather in the same moments: neither do they begin together, nor do they
// keep as much each time. It is never too little for a table, nor leaves what comes meanwhile no room.
func TestNodesGatherApart(t *testing.T) {
	const room, little, whole = 28 << 20, 16 << 10, 9 << 20
	first := make(map[int64]bool)
	for range 20 {
		kept := apply.Gatherings(room, little, 40)
		first[kept[0]] = true
		require.GreaterOrEqual(t, kept[0], int64(whole/2))
		require.LessOrEqual(t, kept[0], int64(whole+little))
		least, most := slices.Min(kept[1:]), slices.Max(kept[1:])
		require.GreaterOrEqual(t, least, int64(whole))
		require.LessOrEqual(t, most, int64(room/2))
		require.Greater(t, most-least, int64(whole/8))
	}
	require.Greater(t, len(first), 10)
}

// Whose room is used up, because gathering takes its time, stores what it has itself.
func TestRoomIsBounded(t *testing.T) {
	const room = 20_000
	b := apply.NewBacklog(room, never)
	f := newFleet(t, b, 3)
	for i := range 200 {
		f.putTo(i%3, fmt.Sprint(i))
		taken, _ := b.Taken()
		require.LessOrEqual(t, taken, int64(room))
	}
	require.Less(t, f.behind(0)+f.behind(1)+f.behind(2), uint64(room/200))
}

// While what they kept is on its way, machines go on (A16): they read back what they wrote, and
// keep what comes. What is stored then is what they were when it was taken out (A14).
func TestMachinesGoOnWhileTheirsIsStored(t *testing.T) {
	b := apply.NewBacklog(1<<20, never)
	f := newFleet(t, b, 2)
	for i := range 2 {
		f.putTo(i, "key")
		f.putTo(i, "key")
	}
	g := b.TakeOut()
	require.Equal(t, 2, g.Machines())
	for i := range 2 {
		require.EqualValues(t, 2, f.behind(i))
		f.turn(fleetShard(i))
		before := f.machine.View()
		res := f.put(letter(i)+"key", "later")
		require.NoError(t, res.Err)
		require.Equal(t, before.Applied+1, f.machine.View().Applied)
		require.EqualValues(t, 3, f.behind(i))
	}
	taken, kept := b.Taken()
	require.Greater(t, taken, kept)
	g.Store()
	for i := range 2 {
		require.EqualValues(t, 1, f.behind(i))
	}
	taken, now := b.Taken()
	require.Equal(t, kept, taken)
	require.Equal(t, kept, now)
	for i := range 2 {
		f.turn(fleetShard(i))
		kvs, err := f.machine.FetchSpan(shard.PointSpan([]byte(letter(i)+"key")), 0, mvccAll)
		require.NoError(t, err)
		require.EqualValues(t, 3, kvs.KVs[0].Version)
		require.Zero(t, f.behind(i))
	}
}

// What has to be in the store waits for what is on its way there: who reads, so that it finds what
// its view speaks of (A13); what is stored at once, so that it does not come first (A14); the end
// of a machine and a snapshot, so that nothing comes after them (A15).
func TestWhoWaitsForGathering(t *testing.T) {
	for name, wait := range map[string]func(f *fixture){
		"a read": func(f *fixture) {
			got, err := f.machine.FetchSpan(shard.PointSpan([]byte("akey")), 0, mvccAll)
			require.NoError(f.t, err)
			require.Len(f.t, got.KVs, 1)
		},
		"a reading update": func(f *fixture) {
			res := f.update(f.entry(deleteAll(f.t)))[0]
			require.NoError(f.t, res.Err)
			require.EqualValues(f.t, 1, res.Response.(*pb.DeleteRangeResponse).Deleted)
		},
		"an update that is stored at once": func(f *fixture) {
			f.compact(f.machine.View().Rev)
		},
		"the end": func(f *fixture) { f.machine.Close() },
		"a snapshot": func(f *fixture) {
			require.NoError(f.t, f.machine.Install(func() error {
				require.Zero(f.t, f.behind(0))
				return f.engine.Replace(shard.Span{Start: []byte("a"), End: []byte("b")}, nil)
			}))
		},
		"a reload": func(f *fixture) { require.NoError(f.t, f.machine.Reload()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := apply.NewBacklog(1<<20, never)
				f := newFleet(t, b, 2)
				f.putTo(1, "key")
				f.putTo(0, "key")
				g := b.TakeOut()
				waited := false
				f.gathering.Go(func() {
					wait(f)
					waited = true
				})
				synctest.Wait()
				require.False(t, waited)
				for i := range 2 {
					if m := f.aside[fleetShard(i)]; i > 0 || name == "a read" { // which holds up nobody
						require.NoError(t, m.Update([]apply.Entry{{Index: m.View().Applied + 1}}, nil))
					}
				}
				require.False(t, waited)
				g.Store()
				f.gathering.Wait()
				require.True(t, waited)
				require.Zero(t, f.behind(0))
			})
		})
	}
}

// A gathering that fails ends the part of all whose versions were in it: neither does anybody read
// what is not there, nor does anything come after it. Others go on, and a machine that begins
// anew finds what was stored before.
func TestGatheringFails(t *testing.T) {
	b := apply.NewBacklog(1<<20, never)
	f := newFleet(t, b, 3)
	f.putTo(0, "key")
	f.putTo(1, "key")
	failure := errors.New("the store has failed")
	b.TakeOut().Fail(failure)
	for i := range 2 {
		f.turn(fleetShard(i))
		require.ErrorIs(t, f.machine.Update([]apply.Entry{f.puts("a", 1)}, nil), failure)
		_, err := f.machine.FetchSpan(shard.PointSpan([]byte(letter(i)+"key")), 0, mvccAll)
		require.ErrorIs(t, err, failure)
		require.ErrorIs(t, f.machine.Store(), failure)
		require.NoError(t, f.machine.Reload())
		require.EqualValues(t, 1, f.machine.View().Applied)
		f.putTo(i, "key")
	}
	f.putTo(2, "key")
	f.store()
	taken, _ := b.Taken()
	require.Zero(t, taken)
}

func deleteAll(t testing.TB) *shardpb.Command {
	return command(t, shardpb.Kind_DELETE_RANGE, 0, &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("b")})
}

// While somebody wants that, nothing is gathered, however much is kept; afterwards it is.
func TestGatheringIsHeld(t *testing.T) {
	b := apply.NewBacklog(1<<20, func(gather func()) { gather() })
	f := newFleet(t, b, 2)
	release, again := b.Hold(), f.machine.HoldGathering()
	value := strings.Repeat("v", 8<<10)
	for i := range 80 { // more than half of the room, at which it is gathered
		require.NoError(t, f.put(letter(1)+fmt.Sprint(i), value).Err)
	}
	release()
	f.putTo(1, "one more")
	require.NotZero(t, f.behind(1))
	again()
	f.putTo(1, "and one more")
	require.Zero(t, f.behind(1))
}
