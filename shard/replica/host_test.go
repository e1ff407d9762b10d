package replica

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/hlc"
	"github.com/flotilla-kv/flotilla/shard/raftlog"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

const (
	testShard   shard.ID        = 2
	testReplica shard.ReplicaID = 1
	testNode    shard.NodeID    = 7
	// patience bounds a wait for what must come.
	patience = 20 * time.Second
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

// process is one life of a node over a directory.
type process struct {
	t       *testing.T
	dir     string
	engine  *engine.Engine
	source  *hlc.Hybrid
	clock   *handClock // of leases
	host    *Host
	replica *Replica
}

func storeDir(dir string) string { return filepath.Join(dir, "store") }
func raftDir(dir string) string  { return filepath.Join(dir, "raft") }

func openProcess(t *testing.T, dir string, incarnation uint64, knobs Knobs) *process {
	t.Helper()
	return openProcessWith(t, dir, incarnation, func(c *HostConfig) { c.Knobs = knobs })
}

func openProcessWith(t *testing.T, dir string, incarnation uint64, edit func(*HostConfig)) *process {
	t.Helper()
	p := &process{t: t, dir: dir, source: hlc.NewHybrid(clock.System{}), clock: &handClock{now: time.Now()}}
	var err error
	p.engine, err = engine.Open(storeDir(dir), engine.Options{CacheBytes: 1 << 20})
	require.NoError(t, err)
	cfg := HostConfig{
		Node: testNode, Incarnation: incarnation, Engine: p.engine, Source: p.source,
		Raft: RaftConfig{
			Dir: raftDir(dir), Address: "n7:1", ClusterID: 5, TickInterval: 10 * time.Millisecond, ElectionTicks: 10,
			LogEntries: 1000, Transport: lonely{}, Log: &raftlog.Factory{},
		},
		Logger: slog.New(slog.DiscardHandler), Metrics: NewMetrics(prometheus.NewRegistry()), ProposalTimeout: 5 * time.Second, Clock: p.clock,
		Apply: apply.Options{Backlog: apply.NewBacklog(1<<20, func(gather func()) { go gather() })},
	}
	edit(&cfg)
	p.host, err = OpenHost(cfg)
	require.NoError(t, err)
	return p
}

// handClock goes when it is told to.
type handClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// close ends the process in good order.
func (p *process) close() {
	p.host.Close()
	require.NoError(p.t, p.engine.Close())
}

// start starts the shard's only replica and waits until it leads.
func (p *process) start() {
	p.t.Helper()
	p.startShard(testShard)
}

func (p *process) startShard(id shard.ID) {
	p.t.Helper()
	require.NoError(p.t, p.host.Start(id, testReplica, map[shard.ReplicaID]string{testReplica: "n7:1"}))
	var ok bool
	p.replica, ok = p.host.Replica(id)
	require.True(p.t, ok)
	require.Eventually(p.t, func() bool {
		p.host.Campaign([]Candidacy{{Held: Held{id, testReplica}}}) // again: at first there are no members yet
		return p.replica.Leads()
	}, patience, time.Millisecond)
}

// startNew is start and the shard's first command.
func (p *process) startNew() {
	p.t.Helper()
	p.startNewShard(testShard, shard.Span{})
}

func (p *process) startNewShard(id shard.ID, span shard.Span) {
	p.t.Helper()
	p.startShard(id)
	require.NoError(p.t, p.propose(initCommand(id, span)).Err)
}

func initCommand(id shard.ID, span shard.Span) *shardpb.Command {
	d := shard.Descriptor{
		ID: id, Span: span, Epoch: 1, Slot: 9, Generation: 1,
		Replicas: []shard.Replica{{ID: testReplica, Node: testNode}}, NextReplicaID: 2,
	}
	return &shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: d.Proto()}
}

// propose waits for the outcome.
func (p *process) propose(cmd *shardpb.Command) shard.Result {
	done := make(chan shard.Result, 1)
	p.replica.Propose(cmd, func(r shard.Result) { done <- r })
	select {
	case r := <-done:
		return r
	case <-time.After(patience):
		p.t.Fatal("no outcome")
		return shard.Result{}
	}
}

func (p *process) put(key, value string) shard.Revision {
	p.t.Helper()
	r := p.propose(putCommand(key, value))
	require.NoError(p.t, r.Err)
	return r.Revision
}

func (p *process) get(key string) string {
	p.t.Helper()
	_, err := p.replica.Barrier(p.t.Context())
	require.NoError(p.t, err)
	resp, err := p.replica.Range(&pb.RangeRequest{Key: []byte(key)}, 0)
	require.NoError(p.t, err)
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}

func putCommand(key, value string) *shardpb.Command {
	body, err := proto.Marshal(&pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	if err != nil {
		panic(err)
	}
	return &shardpb.Command{Kind: shardpb.Kind_PUT, Epoch: 1, Body: body}
}

func TestRestartKeepsData(t *testing.T) {
	dir := t.TempDir()
	p := openProcess(t, dir, 1, Knobs{})
	p.startNew()
	p.put("a", "1")
	last := p.put("b", "2")
	p.close()

	p = openProcess(t, dir, 2, Knobs{})
	defer func() { p.close() }()
	p.start()
	require.Equal(t, "1", p.get("a"))
	require.Equal(t, "2", p.get("b"))
	require.Equal(t, last, p.replica.View().Rev)
	require.GreaterOrEqual(t, p.source.Seen(), last)
	require.Greater(t, p.put("a", "3"), last)
	require.Equal(t, testNode, p.replica.LeaderNode())
	require.NoError(t, p.host.Start(testShard, testReplica, nil), "a second start is none")
}

// P5: a replica whose log or whose data is gone never starts again.
func TestLostLogOrDataIsRefused(t *testing.T) {
	for name, lose := range map[string]func(dir string) string{"log": raftDir, "data": storeDir} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := openProcess(t, dir, 1, Knobs{})
			p.startNew()
			p.put("a", "1")
			p.close()
			require.NoError(t, os.RemoveAll(lose(dir)))

			p = openProcess(t, dir, 2, Knobs{})
			defer func() { p.close() }()
			err := p.host.Start(testShard, testReplica, map[shard.ReplicaID]string{testReplica: "n7:1"})
			require.ErrorIs(t, err, shard.ErrCorrupt)
			require.ErrorContains(t, err, "join again")
			_, ok := p.host.Replica(testShard)
			require.False(t, ok)
		})
	}
}

// P5: a crash just after the first start leaves the record at STARTING. The next start
// completes it, so that a log lost later is noticed.
func TestStartIsCompletedAfterACrash(t *testing.T) {
	dir := t.TempDir()
	p := openProcess(t, dir, 1, Knobs{})
	p.startNew()
	p.put("a", "1")
	data, err := (&shardpb.ReplicaRecord{Format: 1, Phase: shardpb.ReplicaRecord_STARTING}).MarshalVT()
	require.NoError(t, err)
	b := p.engine.NewBatch()
	require.NoError(t, b.Set(engine.LocalKey(testShard, testReplica, recordKind), data, nil))
	require.NoError(t, p.engine.Commit(b))
	require.NoError(t, b.Close())
	p.close()

	p = openProcess(t, dir, 2, Knobs{})
	p.start()
	require.Equal(t, "1", p.get("a"))
	p.close()

	require.NoError(t, os.RemoveAll(raftDir(dir)))
	p = openProcess(t, dir, 3, Knobs{})
	defer func() { p.close() }()
	err = p.host.Start(testShard, testReplica, map[shard.ReplicaID]string{testReplica: "n7:1"})
	require.ErrorIs(t, err, shard.ErrCorrupt)
}

// A start that fails leaves nothing behind and may be tried again.
func TestFailedStartLeavesNothing(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	require.Error(t, p.host.Start(testShard, testReplica, nil), "a new group without members")
	_, ok := p.host.Replica(testShard)
	require.False(t, ok)
	p.startNew()
	p.put("a", "1")
}

func TestEachAndLeaders(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	select {
	case <-p.host.LeadersChanged():
	case <-time.After(patience):
		t.Fatal("nobody heard of the election")
	}
	var ids []shard.ID
	p.host.Each(func(r *Replica) { ids = append(ids, r.ID()) })
	require.Equal(t, []shard.ID{testShard}, ids)
	require.Equal(t, testReplica, p.replica.ReplicaID())
	require.Positive(t, p.replica.Term())
	leader, _ := p.host.Leader(99)
	require.Zero(t, leader)
}
