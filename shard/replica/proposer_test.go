package replica

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// P2, in good weather: every command gets its own result, once.
func TestEveryCommandGetsItsResult(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	before := p.replica.View().Applied

	const n = 3000
	outcomes := make([]atomic.Int32, n)
	results := make([]shard.Result, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		cmd := putCommand(fmt.Sprintf("key%04d", i), fmt.Sprint(i))
		switch i % 10 {
		case 0:
			cmd.Epoch = 5 // routed by another map
		case 1:
			cmd.Body = []byte("\xff") // refused by apply, by nobody before
		}
		p.replica.Propose(cmd, func(r shard.Result) {
			if outcomes[i].Add(1) == 1 {
				results[i] = r
				wg.Done()
			}
		})
	}
	wg.Wait()
	revisions := make(map[shard.Revision]bool)
	for i, r := range results {
		var wrongShard *shard.WrongShardError
		switch i % 10 {
		case 0:
			require.ErrorAs(t, r.Err, &wrongShard)
			require.Equal(t, uint64(1), wrongShard.Descriptors[0].Epoch)
		case 1:
			require.Error(t, r.Err)
		default:
			require.NoError(t, r.Err)
			require.False(t, revisions[r.Revision], "revision %d twice", r.Revision)
			revisions[r.Revision] = true
			require.Equal(t, fmt.Sprint(i), p.get(fmt.Sprintf("key%04d", i)))
		}
		require.Equal(t, int32(1), outcomes[i].Load())
	}
	require.Less(t, p.replica.View().Applied-before, uint64(n/10), "commands that wait go into one entry")
	require.Empty(t, p.replica.proposer.mu.flights)
}

// P2, when the node stops under load: what was acknowledged is there afterwards, what
// was certainly not applied is not.
func TestOutcomesWhenTheNodeStops(t *testing.T) {
	dir := t.TempDir()
	p := openProcess(t, dir, 1, Knobs{})
	p.startNew()
	const n = 4000
	outcomes := make([]atomic.Int32, n)
	errs := make([]error, n)
	var all, some sync.WaitGroup
	all.Add(n)
	some.Add(n / 8)
	go func() {
		for i := range n {
			p.replica.Propose(putCommand(fmt.Sprintf("key%04d", i), "v"), func(r shard.Result) {
				if outcomes[i].Add(1) == 1 {
					errs[i] = r.Err
					all.Done()
					if i < n/8 {
						some.Done()
					}
				}
			})
		}
	}()
	some.Wait()
	p.host.Close()
	all.Wait()
	require.NoError(t, p.engine.Close())

	p = openProcess(t, dir, 2, Knobs{})
	defer func() { p.close() }()
	p.start()
	kinds := make(map[string]int)
	for i, err := range errs {
		require.Equal(t, int32(1), outcomes[i].Load())
		there := p.get(fmt.Sprintf("key%04d", i)) == "v"
		var notLeader *shard.NotLeaderError
		switch {
		case err == nil:
			kinds["done"]++
			require.True(t, there, "acknowledged command %d is lost", i)
		case errors.Is(err, shard.ErrUnknownOutcome):
			kinds["unknown"]++
		case errors.Is(err, shard.ErrUnavailable), errors.As(err, &notLeader):
			kinds["certain"]++
			require.False(t, there, "command %d was applied after %v", i, err)
		default:
			t.Fatalf("command %d: %v", i, err)
		}
	}
	t.Log(kinds)
}

// P1: a batch that another life of this process proposed, or another node, meets no
// waiter here, whatever its sequence.
func TestForeignBatchesMeetNoWaiter(t *testing.T) {
	p := openProcess(t, t.TempDir(), 4, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	waiting := func(sequence uint64) *atomic.Int32 {
		var told atomic.Int32
		p.replica.proposer.mu.Lock()
		p.replica.proposer.mu.flights[sequence] = []pending{{cmd: &shardpb.Command{}, done: func(shard.Result) { told.Add(1) }}}
		p.replica.proposer.mu.Unlock()
		return &told
	}
	for _, foreign := range []*shardpb.Batch{
		{NodeId: uint64(testNode), Incarnation: 3},
		{NodeId: uint64(testNode) + 1, Incarnation: 4},
		{},
	} {
		foreign.Format, foreign.Sequence = 1, 1_000_000
		foreign.Commands = []*shardpb.Command{putCommand("a", "foreign")}
		told := waiting(foreign.Sequence)
		data, err := foreign.MarshalVT()
		require.NoError(t, err)
		nh := p.host.NodeHost()
		rs, err := nh.Propose(nh.GetNoOPSession(uint64(testShard)), data, patience)
		require.NoError(t, err)
		result := <-rs.ResultC()
		require.True(t, result.Completed())
		rs.Release()
		require.Equal(t, "foreign", p.get("a"), "applied like any other")
		require.Zero(t, told.Load())
	}
	p.replica.proposer.take(1_000_000)
}

// P1: a replica that starts again in the same process does not use the numbers of the
// batches that are still in its log.
func TestSequencesAreNeverUsedTwice(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	p.put("a", "1")
	first := p.replica
	used := first.proposer.launch(nil)
	first.proposer.take(used)
	require.NoError(t, p.host.NodeHost().StopReplica(uint64(testShard), uint64(testReplica)))
	require.Eventually(t, func() bool { _, ok := p.host.Replica(testShard); return !ok }, patience, time.Millisecond)
	require.ErrorIs(t, p.host.Start(testShard, testReplica, nil), ErrRemoved)
	p.host.ended.Delete(testShard) // as if the group had not dismissed it
	p.start()
	require.NotSame(t, first, p.replica)
	p.put("a", "2")
	next := p.replica.proposer.launch(nil)
	p.replica.proposer.take(next)
	require.Greater(t, next, used)
}

func TestOnlyALeaderTakesCommands(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startAlone()
	r := p.propose(putCommand("a", "1"))
	var notLeader *shard.NotLeaderError
	require.ErrorAs(t, r.Err, &notLeader)
	require.Zero(t, notLeader.Leader)
}

// startAlone starts one of three members; the others never come.
func (p *process) startAlone() {
	p.t.Helper()
	members := map[shard.ReplicaID]string{1: "n7:1", 2: "n8:1", 3: "n9:1"}
	require.NoError(p.t, p.host.Start(testShard, testReplica, members))
	var ok bool
	p.replica, ok = p.host.Replica(testShard)
	require.True(p.t, ok)
}

func TestUntrustedClockProposesNothing(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	p.source.Distrust("it is an hour late")
	r := p.propose(putCommand("a", "1"))
	require.ErrorIs(t, r.Err, shard.ErrClockUntrusted)
	require.ErrorContains(t, r.Err, "an hour late")
	p.source.Trust()
	require.Equal(t, "", p.get("a"))
	p.put("a", "2")
}

func TestQueueIsBounded(t *testing.T) {
	p := proposer{muster: &muster{}}
	p.mu.running = true // nobody drains
	refused := 0
	submit := func(size int) {
		p.submit(&shardpb.Command{Body: make([]byte, size)}, func(r shard.Result) {
			require.ErrorIs(t, r.Err, shard.ErrOverloaded)
			refused++
		})
	}
	for range queueCommandsMax {
		submit(10)
	}
	require.Zero(t, refused)
	submit(10)
	require.Equal(t, 1, refused)

	p.mu.queue, p.mu.queued, refused = nil, 0, 0
	for range queueBytesMax >> 20 {
		submit(1 << 20)
	}
	require.Zero(t, refused)
	submit(1 << 20)
	require.Equal(t, 1, refused)
}
