package replica

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// overwrite puts versions of the value to each of the keys.
func (p *process) overwrite(keys, versions int, value func() []byte) {
	p.t.Helper()
	for range versions {
		var work sync.WaitGroup
		for k := range keys {
			body, err := proto.Marshal(&pb.PutRequest{Key: fmt.Appendf(nil, "key%03d", k), Value: value()})
			require.NoError(p.t, err)
			work.Add(1)
			p.replica.Propose(&shardpb.Command{Kind: shardpb.Kind_PUT, Epoch: 1, Body: body}, func(r shard.Result) {
				if r.Err != nil {
					p.t.Error(r.Err)
				}
				work.Done()
			})
		}
		work.Wait()
	}
}

// valueOf reads a counter or a gauge.
func valueOf(t *testing.T, metric prometheus.Metric) float64 {
	t.Helper()
	var m dto.Metric
	require.NoError(t, metric.Write(&m))
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

func (p *process) compact() shard.Revision {
	p.t.Helper()
	rev := p.replica.View().Rev
	require.NoError(p.t, p.propose(&shardpb.Command{Kind: shardpb.Kind_COMPACT, Epoch: 1, Revision: int64(rev)}).Err)
	return rev
}

// A compaction is followed, without anybody's doing, by the removal of what it lets go,
// also when the process ends in the middle.
func TestGarbageGoesByItself(t *testing.T) {
	const keys, versions = 100, 30
	dir := t.TempDir()
	p := openProcess(t, dir, 1, Knobs{})
	p.startNew()
	p.overwrite(keys, versions, func() []byte { return []byte("v") })
	before := everything(t, p.replica)
	rev := p.compact()
	p.close()

	p = openProcess(t, dir, 2, Knobs{})
	defer func() { p.close() }()
	p.start()
	require.NoError(t, p.host.WaitCollected(t.Context(), rev))
	require.Equal(t, before.Kvs, everything(t, p.replica).Kvs)
	left, err := p.replica.machine.Collect(mvcc.CollectLimits{})
	require.NoError(t, err)
	require.False(t, left.Ran)
	require.Eventually(t, func() bool { return valueOf(t, p.host.cfg.Metrics.shardsWaiting) == 0 }, patience, time.Millisecond)
	require.EqualValues(t, rev, valueOf(t, p.host.cfg.Metrics.compacted))

	p.overwrite(keys, versions, func() []byte { return []byte("w") })
	rev = p.compact()
	require.NoError(t, p.host.WaitCollected(t.Context(), rev))
	require.GreaterOrEqual(t, valueOf(t, p.host.cfg.Metrics.dropped), float64(keys*(versions-1)))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, p.host.WaitCollected(ctx, rev+1), context.Canceled, "nobody compacted at that")
	waited := make(chan error)
	go func() { waited <- p.host.WaitCollected(t.Context(), rev+1) }()
	p.host.collector.close()
	require.ErrorIs(t, <-waited, shard.ErrStopped)
}

// spacious has a history that takes space. It returns what all of it takes, and what is live.
func (p *process) spacious() (all, live int) {
	p.t.Helper()
	const keys, versions, valueBytes = 64, 640, 512
	random := rand.NewChaCha8([32]byte{1}) // does not compress
	p.overwrite(keys, versions, func() []byte {
		v := make([]byte, valueBytes)
		random.Read(v)
		return v
	})
	require.NoError(p.t, p.engine.Sync())
	require.Greater(p.t, p.size(), keys*versions*valueBytes*9/10)
	return keys * versions * valueBytes, keys * valueBytes
}

// size is what the keys take on disk.
func (p *process) size() int {
	p.t.Helper()
	n, err := p.engine.SpanSize(shard.Everything())
	require.NoError(p.t, err)
	return int(n)
}

// What is removed leaves the disk although nothing else is written any more.
func TestSpaceComesBack(t *testing.T) {
	t.Parallel()
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	all, live := p.spacious()
	p.compact()
	require.Eventually(t, func() bool { return p.size() < all/10 }, patience, time.Millisecond, "of %d bytes, %d live", all, live)
}

// Also when the process ended just after it was removed.
func TestSpaceComesBackInTheNextProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := openProcess(t, dir, 1, Knobs{})
	p.startNew()
	all, live := p.spacious()
	p.host.collector.close()
	p.compact()
	step, err := p.replica.machine.Collect(mvcc.CollectLimits{})
	require.NoError(t, err)
	require.True(t, step.Done)
	require.Greater(t, p.size(), all/2)
	p.close()

	p = openProcess(t, dir, 2, Knobs{})
	defer func() { p.close() }()
	p.start()
	require.Eventually(t, func() bool { return p.size() < all/10 }, patience, time.Millisecond, "of %d bytes, %d live", all, live)
}

// A snapshot that is being sent keeps the history that was readable when it was prepared,
// whatever is compacted and removed meanwhile.
func TestSnapshotKeepsWhatIsCollectedMeanwhile(t *testing.T) {
	const keys = 5
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	p.overwrite(keys, 10, func() []byte { return []byte("old") })
	old := p.replica.View().Rev
	p.overwrite(keys, 10, func() []byte { return []byte("new") })
	sm := &stateMachine{replica: p.replica}
	prepared, err := sm.PrepareSnapshot()
	require.NoError(t, err)
	require.NoError(t, p.host.WaitCollected(t.Context(), p.compact()))
	require.NoError(t, p.engine.Sync())
	_, err = p.replica.Range(&pb.RangeRequest{Key: []byte("key000")}, old)
	require.ErrorIs(t, err, shard.ErrCompacted)
	var stream bytes.Buffer
	require.NoError(t, sm.SaveSnapshot(prepared, &stream, nil))

	to := openProcess(t, t.TempDir(), 2, Knobs{})
	defer func() { to.close() }()
	got := receiver(t, to, 5)
	require.NoError(t, got.RecoverFromSnapshot(&stream, nil))
	for k := range keys {
		resp, err := got.replica.Range(&pb.RangeRequest{Key: fmt.Appendf(nil, "key%03d", k)}, old)
		require.NoError(t, err)
		require.Len(t, resp.Kvs, 1)
		require.Equal(t, "old", string(resp.Kvs[0].Value))
		require.EqualValues(t, 10, resp.Kvs[0].Version)
	}
}
