package apply_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/listing"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
	"github.com/flotilla-kv/flotilla/shard/watch"
)

var mvccAll = listing.FetchOptions{}

func randomOf(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func (f *fixture) put(key, value string) shard.Result {
	return f.apply(command(f.t, shardpb.Kind_PUT, 0, &pb.PutRequest{Key: []byte(key), Value: []byte(value)}))[0]
}

// A read while a snapshot is being installed could see the new data under the old
// view; it must say that it cannot answer, and work again afterwards.
func TestInstall(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	f.put("a", "old")
	req := &pb.RangeRequest{Key: []byte("a")}

	failed := errors.New("stream broke")
	require.ErrorIs(t, f.machine.Install(func() error { return failed }), failed)
	resp, err := f.machine.Range(req, 0)
	require.NoError(t, err)
	require.Equal(t, "old", string(resp.Kvs[0].Value))

	sent := f.machine.View()
	sent.Applied, sent.Rev, sent.Floor, sent.Compacted = 1000, 99<<8, 99<<8, 98<<8
	state, err := apply.MarshalState(sent)
	require.NoError(t, err)
	require.NoError(t, f.machine.Install(func() error {
		err := f.engine.Replace(shard.Everything(), func(*engine.SSTWriter) error { return nil },
			engine.KV{Key: engine.LocalKey(testShard, testReplica, apply.StateKind), Value: state})
		require.NoError(t, err)
		_, err = f.machine.Range(req, 0)
		require.ErrorIs(t, err, shard.ErrUnavailable)
		_, err = f.machine.ReadTxn(&pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("a")}}}, 0, nil)
		require.ErrorIs(t, err, shard.ErrUnavailable)
		_, err = f.machine.HashSpan(shard.Everything(), 0, 1)
		require.ErrorIs(t, err, shard.ErrUnavailable)
		return nil
	}))
	require.Equal(t, sent, f.machine.View())
	resp, err = f.machine.Range(req, 0)
	require.NoError(t, err)
	require.Zero(t, resp.Count)

	// Headers remembered from before are forgotten: "a" is a new key.
	f.index = 1000
	require.Greater(t, f.put("a", "new").Revision, sent.Floor)
	resp, err = f.machine.Range(req, 0)
	require.NoError(t, err)
	require.EqualValues(t, 1, resp.Kvs[0].Version)
}

// Readers beside a writer see whole updates: both keys are always written together.
func TestReadBesideUpdate(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	both := &pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("a")}}},
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b")}}},
	}}
	f.apply(command(t, shardpb.Kind_TXN, 0, both))

	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				v := f.machine.View()
				got, err := f.machine.FetchSpan(shard.Everything(), v.Rev, mvccAll)
				if errors.Is(err, shard.ErrCompacted) {
					continue // the revision was compacted since the view was taken
				}
				if err != nil || len(got.KVs) != 2 || got.KVs[0].ModRevision != got.KVs[1].ModRevision ||
					got.KVs[0].ModRevision > int64(v.Rev) {
					t.Errorf("at %s: %v, %v", v.Rev, got.KVs, err)
					return
				}
			}
		})
	}
	for range 300 {
		rev := f.apply(command(t, shardpb.Kind_TXN, 0, both))[0].Revision
		f.apply(&shardpb.Command{Kind: shardpb.Kind_COMPACT, Epoch: testEpoch, Revision: int64(rev)})
	}
	close(stop)
	readers.Wait()
}

func TestSequenceTellsClaimedBatches(t *testing.T) {
	f := newFixture(t)
	data := func(node, sequence uint64) []byte {
		b := shardpb.Batch{Format: 1, NodeId: node, Sequence: sequence, Commands: []*shardpb.Command{initCommand(shard.Everything())}}
		out, err := b.MarshalVT()
		require.NoError(t, err)
		return out
	}
	entries := []apply.Entry{{Index: 1, Data: data(1, 5)}, {Index: 2, Data: data(2, 6)}, {Index: 4, Data: data(1, 7)}}
	require.NoError(t, f.machine.Update(entries, func(b *shardpb.Batch) bool { return b.NodeId == 1 }))
	require.Equal(t, []uint64{5, 0, 7}, []uint64{entries[0].Sequence, entries[1].Sequence, entries[2].Sequence})
	require.Len(t, entries[0].Results, 1)
	require.Nil(t, entries[1].Results)
	require.Len(t, entries[2].Results, 1)
	require.EqualValues(t, 4, f.machine.View().Applied)
}

func TestUnknownStateIsRefused(t *testing.T) {
	_, err := apply.UnmarshalState([]byte{8, 2})
	require.ErrorContains(t, err, "format 2 is not known")
	_, err = apply.UnmarshalState([]byte{0xff})
	require.ErrorIs(t, err, shard.ErrCorrupt)
	state, err := apply.MarshalState(shard.View{Rev: 2, Floor: 1})
	require.NoError(t, err)
	_, err = apply.UnmarshalState(state)
	require.ErrorIs(t, err, shard.ErrCorrupt)
}

// The state record outlives the process: its bytes are frozen.
func TestStateRecordBytes(t *testing.T) {
	state, err := apply.MarshalState(shard.View{
		Applied: 300, Rev: 2<<8 | 7, Floor: 3 << 8, Compacted: 5,
		Descriptor: &shard.Descriptor{
			ID: 2, Span: shard.Span{Start: []byte("a"), End: []byte("b")}, Epoch: 1, Slot: 7, Generation: 3,
			Replicas: []shard.Replica{{ID: 1, Node: 9, Learner: true}}, NextReplicaID: 2, PreferredNode: 9,
		},
	})
	require.NoError(t, err)
	require.Equal(t, "080110ac02188704208006280532"+
		"1a08021201611a01622001280730033a0608011009180140024809", hex.EncodeToString(state))
}

// BenchmarkPuts applies entries of 64 puts over 10,000 keys, with nobody waiting, and with
// nobody or one feed watching, which is asked after each entry.
func BenchmarkPuts(b *testing.B) {
	b.Run("unwatched", func(b *testing.B) { benchmarkPuts(b, func(*fixture) func() { return func() {} }) })
	for _, prevKV := range []bool{false, true} {
		b.Run(fmt.Sprintf("watched/prev=%v", prevKV), func(b *testing.B) {
			benchmarkPuts(b, func(f *fixture) func() {
				w := f.watch(watch.Options{Span: shard.Everything(), From: f.machine.View().Floor + 1, PrevKV: prevKV})
				return func() {
					if _, err := w.Poll(1000); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// benchmarkPuts calls what prepare returns after each entry.
func benchmarkPuts(b *testing.B, prepare func(f *fixture) func()) {
	f := newFixture(b)
	f.apply(initCommand(shard.Everything()))
	after := prepare(f)
	g := &generator{Rand: randomOf(1), t: b}
	value := make([]byte, 256)
	var entries [][]byte
	for range 200 {
		var cmds []*shardpb.Command
		for range 64 {
			key := []byte{'k', byte(g.IntN(100)), byte(g.IntN(100))}
			cmds = append(cmds, command(b, shardpb.Kind_PUT, 0, &pb.PutRequest{Key: key, Value: value}))
		}
		entries = append(entries, encodeBatch(b, cmds...))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f.index++
		e := []apply.Entry{{Index: f.index, Data: entries[i%len(entries)]}}
		if err := f.machine.Update(e, nil); err != nil {
			b.Fatal(err)
		}
		after()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/put")
}

// A client decides how much a transaction does; looking for repeats must not become
// quadratic, as the node's apply workers are shared.
func TestManyWritesInOneTxn(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	req := &pb.TxnRequest{}
	for i := range 20_000 {
		key := []byte{byte(i), byte(i >> 8), 'd'}
		req.Success = append(req.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
			RequestDeleteRange: &pb.DeleteRangeRequest{Key: key},
		}}, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: append(key[:2:2], 'p')},
		}})
	}
	require.NoError(t, f.apply(command(t, shardpb.Kind_TXN, 0, req))[0].Err)

	all := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{RangeEnd: []byte{0}},
	}}
	req.Success = append(req.Success, all)
	require.ErrorIs(t, f.apply(command(t, shardpb.Kind_TXN, 0, req))[0].Err, rpctypes.ErrGRPCDuplicateKey)
}
