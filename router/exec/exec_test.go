package exec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/hlc"
	"github.com/flotilla-kv/flotilla/shard/raftlog"
	"github.com/flotilla-kv/flotilla/shard/replica"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testShard shard.ID     = 2
	testNode  shard.NodeID = 7
	testEpoch uint64       = 1
	patience               = 20 * time.Second
)

// lonely is the transport of a node that has no peers.
type lonely struct{}

func (lonely) Create(config.NodeHostConfig, raftio.MessageHandler, raftio.ChunkHandler) raftio.ITransport {
	return lonely{}
}
func (lonely) Validate(string) bool { return true }
func (lonely) Name() string         { return "lonely" }
func (lonely) Start() error         { return nil }
func (lonely) Close() error         { return nil }

func (lonely) GetConnection(context.Context, string) (raftio.IConnection, error) {
	return nil, errors.New("nobody there")
}

func (lonely) GetSnapshotConnection(context.Context, string) (raftio.ISnapshotConnection, error) {
	return nil, errors.New("nobody there")
}

// node is an Executor over one shard with keys [b, y), led here.
type node struct {
	*Executor
	t       *testing.T
	replica *replica.Replica
	host    *replica.Host
	full    error // what space says
}

func newNode(t *testing.T) *node {
	n := newUnborn(t)
	n.begin()
	return n
}

// newUnborn is newNode before the shard has got its keys.
func newUnborn(t *testing.T) *node {
	e, err := engine.Open("store", engine.Options{FS: vfs.NewMem(), CacheBytes: 1 << 20})
	require.NoError(t, err)
	host, err := replica.OpenHost(replica.HostConfig{
		Node: testNode, Incarnation: 1, Engine: e, Source: hlc.NewHybrid(clock.System{}),
		Raft: replica.RaftConfig{
			Dir: t.TempDir(), Address: "n7:1", ClusterID: 5, TickInterval: 10 * time.Millisecond, ElectionTicks: 10, LogEntries: 1000,
			Transport: lonely{}, Log: &raftlog.Factory{},
		},
		Logger: slog.New(slog.DiscardHandler), Metrics: replica.NewMetrics(prometheus.NewRegistry()), ProposalTimeout: 5 * time.Second,
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		host.Close()
		require.NoError(t, e.Close())
	})
	n := &node{t: t, host: host}
	n.Executor = New(host, func() error { return n.full })
	require.NoError(t, host.Start(testShard, 1, map[shard.ReplicaID]string{1: "n7:1"}))
	var ok bool
	n.replica, ok = host.Replica(testShard)
	require.True(t, ok)
	require.Eventually(t, func() bool {
		host.Campaign([]replica.Candidacy{{Held: replica.Held{Shard: testShard, Replica: 1}}}) // again: at first there are no members yet
		return n.replica.Leads()
	}, patience, time.Millisecond)
	return n
}

func (n *node) begin() {
	n.t.Helper()
	d := shard.Descriptor{
		ID: testShard, Span: shard.Span{Start: []byte("b"), End: []byte("y")}, Epoch: testEpoch, Slot: 9, Generation: 3,
		Replicas: []shard.Replica{{ID: 1, Node: testNode}}, NextReplicaID: 2,
	}
	_, err := n.write(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: d.Proto()}, false)
	require.NoError(n.t, err)
}

// write waits for the outcome, which must come once.
func (n *node) write(cmd *shardpb.Command, grows bool) (*router.Reply, error) {
	n.t.Helper()
	type outcome struct {
		reply *router.Reply
		err   error
	}
	done := make(chan outcome, 2)
	n.Write(&router.Request{Shard: testShard, Epoch: cmd.Epoch, Op: routerpb.Op_OP_WRITE, Command: cmd, Grows: grows},
		router.EndFunc(func(reply *router.Reply, err error) { done <- outcome{reply, err} }))
	select {
	case o := <-done:
		require.Empty(n.t, done)
		return o.reply, o.err
	case <-time.After(patience):
		n.t.Fatal("no outcome")
		return nil, nil
	}
}

func command(kind shardpb.Kind, req proto.Message) *shardpb.Command {
	body, err := proto.Marshal(req)
	if err != nil {
		panic(err)
	}
	return &shardpb.Command{Kind: kind, Epoch: testEpoch, Body: body}
}

func (n *node) put(key string) shard.Revision {
	n.t.Helper()
	reply, err := n.write(command(shardpb.Kind_PUT, &pb.PutRequest{Key: []byte(key), Value: []byte("v")}), true)
	require.NoError(n.t, err)
	require.IsType(n.t, &pb.PutResponse{}, reply.Message)
	return reply.Rev
}

func (n *node) mark(kind shardpb.Kind, rev shard.Revision) error {
	_, err := n.write(&shardpb.Command{Kind: kind, Epoch: testEpoch, Revision: int64(rev)}, false)
	return err
}

func (n *node) read(change func(*router.Request)) (*router.Reply, error) {
	req := &router.Request{
		Shard: testShard, Epoch: testEpoch, Op: routerpb.Op_OP_RANGE,
		Message: &pb.RangeRequest{Key: []byte("b"), RangeEnd: []byte("y")},
	}
	change(req)
	return n.Read(n.t.Context(), req)
}

func TestUnknownShard(t *testing.T) {
	n := newNode(t)
	var noReplica *shard.NoReplicaError
	_, err := n.read(func(r *router.Request) { r.Shard = 99 })
	require.ErrorAs(t, err, &noReplica)
	n.Write(&router.Request{Shard: 99, Command: &shardpb.Command{}}, router.EndFunc(func(_ *router.Reply, err error) { require.ErrorAs(t, err, &noReplica) }))
}

func TestReads(t *testing.T) {
	n := newNode(t)
	var last shard.Revision
	for i := range 10 {
		last = n.put(fmt.Sprintf("k%d", i))
	}
	reply, err := n.read(func(*router.Request) {})
	require.NoError(t, err)
	require.Equal(t, []shard.Revision{last, last, 0}, []shard.Revision{reply.Rev, reply.Floor, reply.Compacted})
	require.Len(t, reply.Message.(*pb.RangeResponse).Kvs, 10)

	reply, err = n.read(func(r *router.Request) { r.Op = routerpb.Op_OP_PROBE })
	require.NoError(t, err)
	require.Equal(t, last, reply.Rev)
	require.Nil(t, reply.Message)

	for _, noCount := range []bool{false, true} {
		reply, err = n.read(func(r *router.Request) { r.Op, r.Limit, r.NoCount = routerpb.Op_OP_FETCH, 3, noCount })
		require.NoError(t, err)
		got := reply.Message.(*pb.RangeResponse)
		require.Len(t, got.Kvs, 3)
		require.Equal(t, map[bool]int64{false: 10, true: 3}[noCount], got.Count)
	}

	get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k1")}}}
	reply, err = n.read(func(r *router.Request) {
		r.Op, r.Message = routerpb.Op_OP_TXN, &pb.TxnRequest{Success: []*pb.RequestOp{get}}
	})
	require.NoError(t, err)
	require.Len(t, reply.Message.(*pb.TxnResponse).Responses[0].GetResponseRange().Kvs, 1)

	reply, err = n.read(func(r *router.Request) { r.Op, r.At = routerpb.Op_OP_HASH, last })
	require.NoError(t, err)
	part := reply.Message.(*routerpb.HashPart)
	require.NotZero(t, part.Sum)
	require.Nil(t, part.Next)

	_, err = n.read(func(r *router.Request) { r.Op = 99 })
	require.ErrorContains(t, err, "99")
}

// Whoever asks by another map gets the descriptor that corrects it.
// A read that comes before its shard has begun, after a split, waits for that.
func TestReadsWaitUntilTheShardBegins(t *testing.T) {
	n := newUnborn(t)
	read := make(chan error, 1)
	go func() {
		_, err := n.read(func(*router.Request) {})
		read <- err
	}()
	n.begin()
	require.NoError(t, <-read)
}

func TestOtherEpochs(t *testing.T) {
	n := newNode(t)
	before := n.put("k")
	for _, serializable := range []bool{false, true} {
		_, err := n.read(func(r *router.Request) { r.Epoch, r.Serializable = testEpoch+1, serializable })
		var wrongShard *shard.WrongShardError
		require.ErrorAs(t, err, &wrongShard)
		require.Equal(t, uint64(3), wrongShard.Descriptors[0].Generation)
	}
	for _, kind := range []shardpb.Kind{shardpb.Kind_PUT, shardpb.Kind_CLOSE, shardpb.Kind_COMPACT} {
		cmd := command(kind, &pb.PutRequest{Key: []byte("k")})
		cmd.Epoch = testEpoch + 1
		_, err := n.write(cmd, false)
		var wrongShard *shard.WrongShardError
		require.ErrorAs(t, err, &wrongShard, "%v", kind)
	}
	require.Equal(t, before, n.replica.View().Rev)
}

// A floor holds for ever: to reach it again costs no log entry.
func TestCloseIsWrittenOnce(t *testing.T) {
	n := newNode(t)
	floor := n.put("k") + 1000
	require.NoError(t, n.mark(shardpb.Kind_CLOSE, floor))
	applied := n.replica.View().Applied
	for _, lower := range []shard.Revision{floor, floor - 1, 0} {
		require.NoError(t, n.mark(shardpb.Kind_CLOSE, lower))
	}
	require.Equal(t, applied, n.replica.View().Applied)
	require.Equal(t, floor, n.replica.View().Floor)
}

// A close for which the leader's word is enough is promised, as of an entry of the log, and
// not written; feeds heed it, reads do not.
func TestClosesArePromised(t *testing.T) {
	n := newNode(t)
	promise := func(floor shard.Revision) *router.Reply {
		t.Helper()
		done := make(chan *router.Reply, 1)
		cmd := &shardpb.Command{Kind: shardpb.Kind_CLOSE, Epoch: testEpoch, Revision: int64(floor)}
		n.Write(&router.Request{Shard: testShard, Epoch: testEpoch, Op: routerpb.Op_OP_WRITE, Command: cmd, Promise: true}, router.EndFunc(func(reply *router.Reply, err error) {
			require.NoError(t, err)
			done <- reply
		}))
		return <-done
	}
	first := n.put("k") + 1000
	promise(first) // reserves
	applied := n.replica.View().Applied
	require.Equal(t, applied, promise(first+1000).Index)
	require.Equal(t, applied, n.replica.View().Applied)
	require.Less(t, n.replica.View().Floor, first+1000)
	var notClosed *shard.NotClosedError
	_, err := n.read(func(r *router.Request) { r.At = first + 1000 })
	require.ErrorAs(t, err, &notClosed)

	ready := make(chan struct{}, 8)
	feed, err := n.Subscribe(router.Subscription{Shard: testShard, Epoch: testEpoch, Span: shard.Span{Start: []byte("b"), End: []byte("y")}, From: first + 1}, func() { ready <- struct{}{} })
	require.NoError(t, err)
	defer feed.Close()
	feed.Await(first + 1000)
	require.NoError(t, n.Heed(t.Context(), testShard, first+1000, applied))
	<-ready
	got, err := feed.Poll(1)
	require.NoError(t, err)
	require.Equal(t, first+1000, got.Through)
	var none *shard.NoReplicaError
	require.ErrorAs(t, n.Heed(t.Context(), 99, first, applied), &none)
}

func TestReadsAtARevision(t *testing.T) {
	n := newNode(t)
	first := n.put("k1")
	second := n.put("k2")
	reply, err := n.read(func(r *router.Request) { r.At = first })
	require.NoError(t, err)
	require.Len(t, reply.Message.(*pb.RangeResponse).Kvs, 1)
	require.Equal(t, second, reply.Rev, "the view is the shard's, whatever was read")

	// Not final yet: the caller has to close first.
	later := second + 5000
	_, err = n.read(func(r *router.Request) { r.At = later })
	var notClosed *shard.NotClosedError
	require.ErrorAs(t, err, &notClosed)
	require.Equal(t, second, notClosed.Floor)

	// It has, and this replica only has to apply it.
	got := make(chan error, 1)
	go func() {
		_, err := n.read(func(r *router.Request) { r.At, r.Closed = later, true })
		got <- err
	}()
	require.NoError(t, n.mark(shardpb.Kind_CLOSE, later))
	require.NoError(t, <-got)

	// It says so, but it is not true: the wait has an end.
	start := time.Now()
	_, err = n.read(func(r *router.Request) { r.At, r.Closed = later+5000, true })
	require.ErrorAs(t, err, &notClosed)
	require.GreaterOrEqual(t, time.Since(start), floorWait)

	require.NoError(t, n.mark(shardpb.Kind_COMPACT, second))
	_, err = n.read(func(r *router.Request) { r.At = first })
	require.ErrorIs(t, err, shard.ErrCompacted)
	require.ErrorIs(t, n.mark(shardpb.Kind_COMPACT, second), shard.ErrCompacted)
	reply, err = n.read(func(*router.Request) {})
	require.NoError(t, err)
	require.Equal(t, second, reply.Compacted)
}

// Only what makes the store larger is refused while space is short.
func TestSpaceIsShort(t *testing.T) {
	n := newNode(t)
	n.put("k")
	n.full = fmt.Errorf("disk at 99 %%: %w", shard.ErrNoSpace)
	_, err := n.write(command(shardpb.Kind_PUT, &pb.PutRequest{Key: []byte("k")}), true)
	require.ErrorIs(t, err, shard.ErrNoSpace)
	reply, err := n.write(command(shardpb.Kind_DELETE_RANGE, &pb.DeleteRangeRequest{Key: []byte("k")}), false)
	require.NoError(t, err)
	require.Equal(t, int64(1), reply.Message.(*pb.DeleteRangeResponse).Deleted)
}

// A compaction never fails a read of the latest state, however they meet.
func TestLatestReadsDuringCompactions(t *testing.T) {
	n := newNode(t)
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := n.mark(shardpb.Kind_COMPACT, n.put("k")); err != nil {
				t.Errorf("compact: %v", err)
				return
			}
		}
	}()
	for range 500 {
		_, err := n.read(func(*router.Request) {})
		require.NotErrorIs(t, err, shard.ErrCompacted)
		if err != nil {
			require.ErrorIs(t, err, shard.ErrUnavailable)
		}
	}
	close(stop)
	<-ended
}

func TestReaderThatLeaves(t *testing.T) {
	n := newNode(t)
	rev := n.put("k")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := n.Read(ctx, &router.Request{
		Shard: testShard, Epoch: testEpoch, Op: routerpb.Op_OP_PROBE, Serializable: true, At: rev + 1000, Closed: true,
	})
	require.ErrorIs(t, err, context.Canceled)
}

// TestStartRead puts and reads one key in turn, from the store and from memory: the answers are those of Read, and none misses
// the put before it.
func TestStartRead(t *testing.T) {
	n := newNode(t)
	type outcome struct {
		reply *router.Reply
		err   error
	}
	start := func(change func(*router.Request)) (outcome, bool) {
		req := &router.Request{Shard: testShard, Epoch: testEpoch, Op: routerpb.Op_OP_RANGE, Message: &pb.RangeRequest{Key: []byte("k")}}
		change(req)
		done := make(chan outcome, 2)
		if !n.StartRead(req, func(reply *router.Reply, err error) { done <- outcome{reply, err} }) {
			require.Empty(t, done)
			return outcome{}, false
		}
		return <-done, true
	}
	reads := []func(*router.Request){
		func(*router.Request) {},
		func(*router.Request) {}, // from memory, if the one before put it there
		func(r *router.Request) { r.Message = &pb.RangeRequest{Key: []byte("k"), KeysOnly: true} },
		func(r *router.Request) { r.Message = &pb.RangeRequest{Key: []byte("k"), CountOnly: true} },
		func(r *router.Request) {
			r.Message = &pb.RangeRequest{Key: []byte("k"), Limit: 1, SortOrder: pb.RangeRequest_DESCEND}
		},
		func(r *router.Request) { r.Message = &pb.RangeRequest{Key: []byte("k"), MinModRevision: 1 << 60} },
		func(r *router.Request) { r.Message = &pb.RangeRequest{Key: []byte("b"), RangeEnd: []byte("y")} },
		func(r *router.Request) { r.Message = &pb.RangeRequest{Key: []byte("none")} },
		func(r *router.Request) { r.Message = &pb.RangeRequest{Key: []byte("z")} }, // of another shard
		func(r *router.Request) { r.Epoch++ },
	}
	for range 5 {
		rev := n.put("k")
		for i, change := range reads {
			got, ok := start(change)
			require.True(t, ok)
			want, err := n.read(func(r *router.Request) {
				r.Message = &pb.RangeRequest{Key: []byte("k")}
				change(r)
			})
			require.Equal(t, err, got.err, i)
			if err == nil {
				require.Equal(t, rev, got.reply.Rev)
				require.Equal(t, []shard.Revision{want.Rev, want.Floor, want.Compacted}, []shard.Revision{got.reply.Rev, got.reply.Floor, got.reply.Compacted})
				require.True(t, proto.Equal(want.Message, got.reply.Message), "%d: %v, want %v", i, got.reply.Message, want.Message)
			}
		}
	}
	for _, other := range []func(*router.Request){
		func(r *router.Request) { r.Serializable = true },
		func(r *router.Request) { r.At = 1 },
		func(r *router.Request) { r.Op = routerpb.Op_OP_PROBE },
		func(r *router.Request) { r.Shard = 99 },
	} {
		_, ok := start(other)
		require.False(t, ok)
	}
}
