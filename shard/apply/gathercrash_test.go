package apply_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// pastShard is the log of one shard of a fleet, and what it comes to.
type pastShard struct {
	i       int
	entries []apply.Entry
	states  []map[string]string // after so many entries
	durable uint64              // a crash leaves at least so many
}

// step gives the shard one more entry, of a few puts and deletes, sometimes with something
// that is stored at once.
func (p *pastShard) step(g *generator, f *fixture) {
	var cmds []*shardpb.Command
	now := maps.Clone(p.states[len(p.states)-1])
	for range g.IntN(4) {
		key := fmt.Sprintf("%s%d", letter(p.i), g.IntN(6))
		if g.oneIn(4) {
			cmds = append(cmds, command(f.t, shardpb.Kind_DELETE_RANGE, 0, &pb.DeleteRangeRequest{Key: []byte(key)}))
			delete(now, key)
			continue
		}
		value := fmt.Sprint(f.index, g.IntN(10))
		cmds = append(cmds, command(f.t, shardpb.Kind_PUT, 0, &pb.PutRequest{Key: []byte(key), Value: []byte(value)}))
		now[key] = value
	}
	if g.oneIn(8) {
		cmds = append(cmds, &shardpb.Command{Kind: shardpb.Kind_COMPACT, Epoch: testEpoch, Revision: int64(f.machine.View().Rev)})
	}
	e := f.entry(cmds...)
	p.entries, p.states = append(p.entries, e), append(p.states, now)
	require.NoError(f.t, f.machine.Update([]apply.Entry{e}, nil))
}

// check compares the shard with what it was after the entry that it says it has applied.
func (p *pastShard) check(f *fixture) {
	at := f.machine.View().Applied
	require.LessOrEqual(f.t, p.durable, at)
	require.Less(f.t, at, uint64(len(p.states)))
	f.holds(p.i, p.states[at])
}

// holds reads all keys of a shard of a fleet.
func (f *fixture) holds(i int, want map[string]string) {
	f.turn(fleetShard(i))
	all, err := f.machine.FetchSpan(shard.Span{Start: []byte(letter(i)), End: []byte(letter(i + 1))}, 0, mvccAll)
	require.NoError(f.t, err)
	got := map[string]string{}
	for _, kv := range all.KVs {
		got[string(kv.Key)] = string(kv.Value)
	}
	require.Equal(f.t, want, got)
}

// Whenever the machine loses power, each shard is as it was after one entry of its log, not
// before what was stored and synced, and goes on from there (A3, A14): whatever was kept, was on
// its way, and was stored at once, for whatever reason.
func TestCrashLeavesEachShardOneMoment(t *testing.T) {
	const shards = 4
	g := seeded(t)
	f := newNode(t, 1, vfs.NewCrashableMem())
	open := func() { f.fleet(apply.NewBacklog(6000, f.gathering.Go), shards) }
	open()
	var past []*pastShard
	for i := range shards {
		first := apply.Entry{Index: 1, Data: encodeBatch(t, fleetStart(i))}
		past = append(past, &pastShard{i: i, entries: []apply.Entry{first}, states: []map[string]string{{}, {}}})
	}
	lost, kept := 0, 0
	for range 80 {
		for range g.IntN(60) {
			p := past[g.IntN(shards)]
			f.turn(fleetShard(p.i))
			switch {
			case g.oneIn(20):
				f.holds(p.i, p.states[len(p.states)-1])
			case g.oneIn(20):
				var stored [shards]uint64
				for i := range past {
					stored[i] = f.storedIndex(fleetShard(i))
				}
				require.NoError(t, f.engine.Sync())
				for i, p := range past {
					p.durable = stored[i]
				}
			default:
				p.step(g, f)
			}
		}
		f.fs = f.fs.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100 * g.IntN(2), RNG: g.Rand})
		f.close()
		f.open()
		open()
		for _, p := range past {
			f.turn(fleetShard(p.i))
			p.check(f)
			at := f.machine.View().Applied
			lost, kept = lost+len(p.entries)-int(at), kept+int(at)
			require.NoError(t, f.machine.Update(p.entries[at:], nil))
			if g.oneIn(2) {
				f.holds(p.i, p.states[len(p.states)-1])
			}
		}
	}
	require.NotZero(t, lost)
	require.NotZero(t, kept)
}
