package replica

import (
	"fmt"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/load"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

func txnCommand(keys ...string) *shardpb.Command {
	req := &pb.TxnRequest{}
	for _, k := range keys {
		req.Success = append(req.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(k)}}})
	}
	body, err := proto.Marshal(req)
	if err != nil {
		panic(err)
	}
	return &shardpb.Command{Kind: shardpb.Kind_TXN, Epoch: 1, Body: body}
}

// What a leader measures, second by second, of a load that is known.
func TestMeasuring(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	measure := func() Load {
		t.Helper()
		p.host.Measure(now, time.Hour)
		loads := p.host.Loads()
		require.Len(t, loads, 1)
		return loads[0]
	}

	first := measure()
	require.Equal(t, Load{
		Shard: testShard, Replica: testReplica, Leader: testReplica, Term: first.Term, Applied: first.Applied,
		Epoch: 1, Generation: 1, Sized: now, Since: now,
		Commit: first.Commit, CommitSlow: first.CommitSlow, // of what the group itself wrote, if that was after it led
	}, first)

	size := 0
	propose := func(cmd *shardpb.Command) {
		t.Helper()
		require.NoError(t, p.propose(cmd).Err)
		size += len(cmd.Body)
	}
	for i := range 100 {
		propose(putCommand(fmt.Sprintf("key%03d", i), "v"))
	}
	for i := range 50 {
		propose(txnCommand(fmt.Sprintf("txn%03d", i), "x"))
	}
	for range 30 { // no writes, though in the log
		require.NoError(t, p.propose(&shardpb.Command{Kind: shardpb.Kind_CLOSE, Epoch: 1, Revision: int64(p.replica.View().Floor + 1)}).Err)
	}
	for range 20 {
		p.get("key001")
	}
	now = now.Add(2 * time.Second)
	l := measure()
	require.Equal(t, 75.0, l.Writes)
	require.InDelta(t, float64(size)/2, l.WriteBytes, 0.001)
	require.Equal(t, 10.0, l.Reads)
	require.Equal(t, l.Writes, l.PeakWrites, "at least that")
	require.Positive(t, l.Commit)
	require.GreaterOrEqual(t, l.CommitSlow, l.Commit)
	require.True(t, shard.Span{Start: []byte("key06"), End: []byte("key09")}.Contains(l.Balance.Key), "%s", l.Balance.Key)
	require.InDelta(t, 0.5, l.Balance.Left, 0.05)

	t.Run("peaks are remembered", func(t *testing.T) {
		for range 600 {
			now = now.Add(time.Second)
			l = measure()
		}
		require.Less(t, l.Writes, 0.01)
		require.Greater(t, l.PeakWrites, 1.0)
		require.Greater(t, l.PeakWriteBytes, l.PeakWrites)
	})
	t.Run("sizes are of the disk", func(t *testing.T) {
		require.Zero(t, l.Bytes)
		for i := range 4000 {
			p.put(fmt.Sprintf("key%04d", i), fmt.Sprintf("%0100d", i*i))
		}
		require.NoError(t, p.replica.machine.Store())
		require.NoError(t, p.engine.Sync())
		require.Eventually(t, func() bool {
			now = now.Add(sizeEvery)
			l = measure()
			return l.Bytes > 0
		}, patience, time.Millisecond)
		require.InEpsilon(t, 4000, l.Versions, 0.1)
		require.NotEmpty(t, l.Middle.Key)
		require.InDelta(t, 0.5, l.Middle.Left, 0.2)
	})
	t.Run("a reign begins with nothing", func(t *testing.T) {
		lead := func(id shard.ReplicaID) {
			p.host.LeaderUpdated(raftio.LeaderInfo{ShardID: uint64(testShard), ReplicaID: uint64(testReplica), LeaderID: uint64(id), Term: l.Term})
		}
		require.NotZero(t, l.Writes)
		lead(testReplica + 1)
		now = now.Add(time.Second)
		l = measure()
		require.Zero(t, l.Since)
		require.Zero(t, l.Writes)
		require.Zero(t, l.PeakWrites)
		require.Equal(t, load.Point{}, l.Balance)
		require.NotZero(t, l.Bytes, "what it has it has all the same")
		lead(testReplica)
		now = now.Add(time.Second)
		l = measure()
		require.Equal(t, now, l.Since)
		require.Zero(t, l.Writes, "what was counted before is not taken for a burst")
	})
}

// Where all shards of a node have grown, few of them are looked at in one Measure, but each in its turn.
func TestAllShardsAreLookedAtInTurn(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	const shards = 3*looksMax - 1
	for i := range shards {
		start := fmt.Sprintf("%02d", i)
		p.startNewShard(testShard+shard.ID(i), shard.Span{Start: []byte(start), End: fmt.Appendf(nil, "%02d", i+1)})
		for key := range 100 {
			p.put(fmt.Sprintf("%s/%02d", start, key), fmt.Sprintf("%0100d", key))
		}
		require.NoError(t, p.replica.machine.Store())
	}
	require.NoError(t, p.engine.Sync())
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, want := range []int{looksMax, 2 * looksMax, shards, shards} {
		p.host.Measure(now, time.Hour)
		seen := 0
		for _, l := range p.host.Loads() {
			if l.Versions > 0 {
				seen++
			}
		}
		require.Equal(t, want, seen)
		now = now.Add(time.Second)
	}
}

// The key by which a command counts.
func TestKeysOfCommands(t *testing.T) {
	nested, err := proto.Marshal(&pb.TxnRequest{
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("read")}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("gone")}}}},
		}}}},
	})
	require.NoError(t, err)
	deletion, err := proto.Marshal(&pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("b")})
	require.NoError(t, err)
	for want, cmd := range map[string]*shardpb.Command{
		"put":  putCommand("put", "v"),
		"txn":  txnCommand("txn", "other"),
		"gone": {Kind: shardpb.Kind_TXN, Body: nested},
		"a":    {Kind: shardpb.Kind_DELETE_RANGE, Body: deletion},
	} {
		require.Equal(t, want, string(writtenKey(cmd)))
	}
	require.Nil(t, writtenKey(&shardpb.Command{Kind: shardpb.Kind_PUT, Body: []byte("\xff")}))
	require.Nil(t, writtenKey(txnCommand()))
}

// What measuring adds to a put, alone in its batch: with every key taken, as on a shard
// that is hardly written, and with one in some hundreds, as on a busy one. A put costs
// 80 µs and more.
func BenchmarkCountAPut(b *testing.B) {
	for _, perSecond := range []float64{0, 1000, 10_000} {
		b.Run(fmt.Sprintf("writes=%.0f", perSecond), func(b *testing.B) {
			var m meter
			m.mu.sample.Pace(perSecond)
			batch := []pending{{cmd: putCommand("registry/pods/default/web-0", fmt.Sprintf("%0256d", 1))}}
			b.ReportAllocs()
			for b.Loop() {
				m.wrote(batch)
			}
		})
	}
}
