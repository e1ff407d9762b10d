package replica

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// started waits for a barrier that nobody has to wait for.
func (p *process) started() (shard.View, error) {
	type outcome struct {
		view shard.View
		err  error
	}
	done := make(chan outcome, 2)
	p.replica.StartBarrier(func(view shard.View, err error) { done <- outcome{view, err} })
	o := <-done
	require.Empty(p.t, done)
	return o.view, o.err
}

// P3: who writes and then asks sees the write, whether or not the barrier is waited for.
func TestBarrierSeesAcknowledgedWrites(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range 30 {
				rev := p.put("a", "1")
				barrier := p.started
				if i%2 == 0 {
					barrier = func() (shard.View, error) { return p.replica.Barrier(t.Context()) }
				}
				view, err := barrier()
				require.NoError(t, err)
				require.GreaterOrEqual(t, view.Rev, rev)
			}
		})
	}
	wg.Wait()
}

// rounds is how many ReadIndex rounds there were.
func (p *process) rounds() uint64 {
	var m dto.Metric
	require.NoError(p.t, p.host.cfg.Metrics.barrierReads.(prometheus.Metric).Write(&m))
	return m.GetHistogram().GetSampleCount()
}

// Who waits for something to be applied asks for what is committed: a leader may tell it late.
func TestWaitingForTheLogAsksForIt(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	rev, rounds := p.put("a", "1"), p.rounds()
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error)
	go func() { waited <- p.replica.WaitFloor(ctx, rev+1<<40) }()
	require.Eventually(t, func() bool { return p.rounds() > rounds }, patience, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-waited, context.Canceled)
}

// Without a leader a barrier fails, soon and certainly, and does not spin.
func TestBarrierWithoutALeader(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startAlone()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := p.replica.Barrier(ctx)
	require.ErrorIs(t, err, shard.ErrUnavailable)
	_, err = p.started()
	require.ErrorIs(t, err, shard.ErrUnavailable)
	require.Less(t, time.Since(start), patience)
	require.LessOrEqual(t, p.rounds(), uint64(50))
}

// What was asked of a leader that is lost is asked of the next one, as soon as there is one and as long
// as that one does not answer.
func TestBarrierAsksTheNextLeader(t *testing.T) {
	box := mailbox{sent: make(chan raftpb.Message, 1000)}
	p := openProcessWith(t, t.TempDir(), 1, func(c *HostConfig) { c.Raft.Transport, c.Raft.ElectionTicks = box, 1<<20 })
	defer func() { p.close() }()
	p.startAlone()
	hears := func(m raftpb.Message) {
		m.ShardID, m.To = uint64(testShard), uint64(testReplica)
		p.host.doorway.deliver(p.host.batchOf(m))
	}
	follows := func(leader shard.ReplicaID, term uint64) {
		require.Eventually(t, func() bool {
			hears(raftpb.Message{Type: raftpb.Heartbeat, From: uint64(leader), Term: term})
			known, _ := p.host.Leader(testShard)
			return known == leader
		}, patience, time.Millisecond)
	}
	follows(2, 5)
	outcome := make(chan error, 1)
	p.replica.StartBarrier(func(_ shard.View, err error) { outcome <- err })
	box.find(t, raftpb.ReadIndex, 2)
	follows(3, 6)
	asked := box.find(t, raftpb.ReadIndex, 3)
	box.find(t, raftpb.ReadIndex, 3) // in case it was too new to answer, but it is only slow
	hears(raftpb.Message{Type: raftpb.ReadIndexResp, From: 3, Term: 6, LogIndex: 1, Hint: asked.Hint, HintHigh: asked.HintHigh})
	require.NoError(t, <-outcome)
}

// A leader whose answers take longer than a ReadIndex may at first is read from nevertheless.
func TestBarrierWaitsForALeaderFarAway(t *testing.T) {
	const away = readIndexMin + readIndexMin/2
	box := mailbox{sent: make(chan raftpb.Message, 1000)}
	p := openProcessWith(t, t.TempDir(), 1, func(c *HostConfig) { c.Raft.Transport, c.Raft.ElectionTicks = box, 1<<20 })
	defer func() { p.close() }()
	p.startAlone()
	hears := func(m raftpb.Message) {
		m.ShardID, m.To, m.From, m.Term = uint64(testShard), uint64(testReplica), 2, 5
		p.host.doorway.deliver(p.host.batchOf(m))
	}
	require.Eventually(t, func() bool {
		hears(raftpb.Message{Type: raftpb.Heartbeat})
		known, _ := p.host.Leader(testShard)
		return known == 2
	}, patience, time.Millisecond)
	read := func(answered time.Duration) error { // 0: the request is lost
		outcome := make(chan error, 1)
		p.replica.StartBarrier(func(_ shard.View, err error) { outcome <- err })
		asked := box.find(t, raftpb.ReadIndex, 2)
		if answered > 0 {
			time.AfterFunc(answered, func() {
				hears(raftpb.Message{Type: raftpb.ReadIndexResp, LogIndex: 1, Hint: asked.Hint, HintHigh: asked.HintHigh})
			})
		}
		return <-outcome
	}
	require.ErrorIs(t, read(0), shard.ErrUnavailable)
	require.Equal(t, readIndexMin, p.replica.barrier.bound(), "what is lost says nothing about the way")
	require.ErrorIs(t, read(away), shard.ErrUnavailable)
	require.Eventually(t, func() bool { return p.replica.barrier.bound() >= 2*away }, patience, time.Millisecond)
	for range 3 {
		require.NoError(t, read(away))
	}
	require.NoError(t, read(time.Nanosecond))
	require.Equal(t, readIndexMin, p.replica.barrier.bound())
}

// mailbox is the transport of a node whose peers keep what they are sent.
type mailbox struct {
	lonely
	sent chan raftpb.Message
}

// letterbox is its connection to a peer.
type letterbox struct{ mailbox }

func (b mailbox) Create(config.NodeHostConfig, raftio.MessageHandler, raftio.ChunkHandler) raftio.ITransport {
	return b
}

func (b mailbox) GetConnection(context.Context, string) (raftio.IConnection, error) {
	return letterbox{b}, nil
}

func (letterbox) Close() {}

func (b letterbox) SendMessageBatch(batch raftpb.MessageBatch) error {
	for _, m := range batch.Requests {
		select {
		case b.sent <- m:
		default: // lost, as on a network
		}
	}
	return nil
}

// find returns the next message of the type to the replica.
func (b mailbox) find(t *testing.T, kind raftpb.MessageType, to uint64) raftpb.Message {
	t.Helper()
	for {
		select {
		case m := <-b.sent:
			if m.Type == kind && m.To == to {
				return m
			}
		case <-time.After(patience):
			t.Fatalf("no %s to replica %d", kind, to)
		}
	}
}

func TestBarrierOfOneWhoLeaves(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.replica.Barrier(ctx)
	if err != nil { // the round may have been faster
		require.ErrorIs(t, err, context.Canceled)
	}
	_, err = p.replica.Barrier(t.Context())
	require.NoError(t, err, "the others are not disturbed")
}

func TestBarrierOfAStoppedNode(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	p.startNew()
	p.close()
	_, err := p.replica.Barrier(t.Context())
	require.Error(t, err)
	require.NotErrorIs(t, err, shard.ErrUnknownOutcome)
	_, err = p.started()
	require.Error(t, err)
	require.NotErrorIs(t, err, shard.ErrUnknownOutcome)
}

func TestWaitFloor(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	rev := p.put("a", "1")
	require.NoError(t, p.replica.WaitFloor(t.Context(), rev), "a write closes what is below it")

	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() { require.NoError(t, p.replica.WaitFloor(t.Context(), rev+shard.Revision(20*i))) })
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	wg.Go(func() {
		err := p.replica.WaitFloor(ctx, rev+1_000_000)
		require.ErrorIs(t, err, &gone)
	})
	for floor := rev; floor < rev+1000; floor += 100 {
		require.NoError(t, p.propose(&shardpb.Command{Kind: shardpb.Kind_CLOSE, Epoch: 1, Revision: int64(floor + 100)}).Err)
		require.Equal(t, floor+100, p.replica.View().Floor)
	}
	require.Equal(t, rev, p.replica.View().Rev, "a Close mints nothing")
	cancel(&gone)
	wg.Wait()
	p.replica.views.Lock() // the apply worker may still be looking
	waiting := len(p.replica.views.waiters)
	p.replica.views.Unlock()
	require.Zero(t, waiting)
	require.Greater(t, p.put("a", "2"), rev+1000)
}

var gone shard.NotClosedError
