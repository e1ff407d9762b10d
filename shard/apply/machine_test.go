package apply_test

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

const (
	testShard   shard.ID        = 2
	testReplica shard.ReplicaID = 1
	testSlot    shard.Slot      = 7
	testEpoch   uint64          = 1
)

// fixture is a machine on a store in memory, and the log that feeds it. It is the node's
// replica of a shard, which has the number of the node.
type fixture struct {
	t       testing.TB
	fs      vfs.FS
	node    shard.NodeID
	engine  *engine.Engine
	headers *mvcc.HeaderBudget
	rows    *mvcc.Rows
	trails  *mvcc.Trails
	id      shard.ID
	machine *apply.Machine
	index   uint64
	// aside are the node's other machines: see turn.
	aside map[shard.ID]*apply.Machine
	// backlog is the node's, of which gatherings run beside the test.
	backlog *apply.Backlog
	// gathering are those.
	gathering sync.WaitGroup
	// log, unless nil, remembers the entries of each shard, so that they can be replayed.
	log map[shard.ID][]apply.Entry
	// checksum, if set, is called for machines opened afterwards: apply.Options.Checksum.
	checksum func(index uint64)
	// gone is the same with apply.Options.Gone.
	gone func(shard.ID, shard.ReplicaID) (bool, error)
}

func newFixture(t testing.TB) *fixture { return newNode(t, 1, vfs.NewMem()) }

func newNode(t testing.TB, node shard.NodeID, fs vfs.FS) *fixture {
	f := &fixture{t: t, fs: fs, node: node, id: testShard, aside: make(map[shard.ID]*apply.Machine)}
	f.open()
	t.Cleanup(f.close)
	return f
}

func (f *fixture) open() {
	var err error
	f.engine, err = engine.Open("store", engine.Options{FS: f.fs, CacheBytes: 1 << 20})
	require.NoError(f.t, err)
	// Few headers, so that tests with some dozen keys miss the cache too, and packed ones.
	f.headers = mvcc.NewHeaderBudget(0, 4, 512<<10)
	f.rows = mvcc.NewRows(16) // few, for keys to share a slot
	f.trails = mvcc.NewTrails(2 << 10)
	clear(f.aside)
	f.backlog = apply.NewBacklog(8000, f.gathering.Go) // about twenty versions; ten are gathered
	f.machine = f.openMachine(f.id)
	f.index = f.machine.View().Applied
}

// close ends the store once nobody gathers for it.
func (f *fixture) close() {
	f.gathering.Wait()
	require.NoError(f.t, f.engine.Close())
}

func (f *fixture) openMachine(id shard.ID) *apply.Machine {
	m, err := apply.Open(f.engine, id, shard.ReplicaID(f.node), apply.Options{
		Headers: f.headers, Rows: f.rows, Trails: f.trails, Node: f.node, Checksum: f.checksum,
		Backlog: f.backlog, Gone: f.gone,
	})
	require.NoError(f.t, err)
	return m
}

// turn takes the node's machine of another shard to hand.
func (f *fixture) turn(id shard.ID) {
	f.aside[f.id] = f.machine
	f.id, f.machine = id, f.aside[id]
	if f.machine == nil {
		f.machine = f.openMachine(id)
	}
	f.index = f.machine.View().Applied
}

// store brings to the store what the node's machines have applied.
func (f *fixture) store() {
	require.NoError(f.t, f.machine.Store())
	for _, m := range f.aside {
		require.NoError(f.t, m.Store())
	}
}

// reader is the store with all that was applied.
func (f *fixture) reader() engine.Reader {
	f.store()
	return f.engine.NewReader()
}

// restart closes the store in good order and opens everything anew.
func (f *fixture) restart() {
	f.store()
	f.close()
	f.open()
}

// apply feeds commands as one entry of their own and returns their results.
func (f *fixture) apply(cmds ...*shardpb.Command) []shard.Result {
	return f.update(f.entry(cmds...))
}

func (f *fixture) entry(cmds ...*shardpb.Command) apply.Entry {
	f.index++
	return apply.Entry{Index: f.index, Data: encodeBatch(f.t, cmds...)}
}

// update feeds an entry whose results are wanted.
func (f *fixture) update(e apply.Entry) []shard.Result { return f.updateAll(e)[0].Results }

// updateAll feeds entries at once and returns them with their results.
func (f *fixture) updateAll(entries ...apply.Entry) []apply.Entry {
	for i := range entries {
		entries[i].Want = true
		if f.log != nil {
			f.log[f.id] = append(f.log[f.id], apply.Entry{Index: entries[i].Index, Data: entries[i].Data})
		}
	}
	require.NoError(f.t, f.machine.Update(entries, nil))
	return entries
}

// hash is over everything the store holds: data, leases and the replica's own records.
func (f *fixture) hash() string {
	h := sha256.New()
	it, err := f.reader().NewIter(nil)
	require.NoError(f.t, err)
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		require.NoError(f.t, err)
		fmt.Fprintf(h, "%q=%q\n", it.Key(), value)
	}
	require.NoError(f.t, it.Close())
	return fmt.Sprintf("%x", h.Sum(nil))
}

func encodeBatch(t testing.TB, cmds ...*shardpb.Command) []byte {
	data, err := (&shardpb.Batch{Format: 1, NodeId: 1, Sequence: 1, Commands: cmds}).MarshalVT()
	require.NoError(t, err)
	return data
}

func initCommand(span shard.Span) *shardpb.Command {
	d := shard.Descriptor{
		ID: testShard, Span: span, Epoch: testEpoch, Slot: testSlot, Generation: 1,
		Replicas: []shard.Replica{{ID: testReplica, Node: 1}}, NextReplicaID: 2,
	}
	return &shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: d.Proto()}
}

// command wraps a request; stamp is its proposer's clock.
func command(t testing.TB, kind shardpb.Kind, stamp shard.Tick, req proto.Message) *shardpb.Command {
	body, err := proto.Marshal(req)
	require.NoError(t, err)
	return &shardpb.Command{Kind: kind, Epoch: testEpoch, Stamp: int64(stamp), Body: body}
}
