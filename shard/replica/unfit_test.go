package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/lni/dragonboat/v4/statemachine"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
	"github.com/flotilla-kv/flotilla/shard/watch"
)

// P9: a quarantined replica serves nothing, before a restart and after it, and keeps the
// log all the same.
func TestQuarantineIsForGood(t *testing.T) {
	dir := t.TempDir()
	p := openProcess(t, dir, 1, Knobs{})
	p.startNew()
	p.put("a", "1")
	feed, err := p.replica.Subscribe(watch.Options{Epoch: 1, Span: shard.Everything(), From: 1, Ready: func() {}})
	require.NoError(t, err)
	_, serves := p.host.Serving(testShard)
	require.True(t, serves)

	require.NoError(t, p.replica.Quarantine("it differs"))
	require.NoError(t, p.replica.Quarantine("again"), "once is enough")
	var gone *shard.NoReplicaError
	for err == nil { // what it had is given first
		_, err = feed.Poll(100)
	}
	require.ErrorAs(t, err, &gone)
	require.ErrorAs(t, p.propose(putCommand("a", "2")).Err, &gone)
	_, err = (&stateMachine{replica: p.replica}).PrepareSnapshot()
	require.ErrorIs(t, err, statemachine.ErrSnapshotAborted, "nobody gets what is damaged")
	p.close()

	p = openProcess(t, dir, 2, Knobs{})
	p.start()
	_, serves = p.host.Serving(testShard)
	require.False(t, serves)
	require.Equal(t, "it differs", p.replica.Unfit())
	require.Equal(t, "it differs", p.replica.load().Unfit)
	require.NotNil(t, p.replica.View().Descriptor, "its data is known to be removed")
	p.remove()
	require.Empty(t, p.keys())
	record, err := p.host.record(testShard, testReplica)
	require.NoError(t, err)
	require.Equal(t, shardpb.ReplicaRecord_REMOVED, record.Phase)
	p.close()
}

// A disputed shard takes no writes of keys and leases, and goes on with the rest.
func TestDisputedShardsAreNotWritten(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	p.put("a", "1")
	p.replica.Dispute(true)
	require.ErrorIs(t, p.propose(putCommand("a", "2")).Err, shard.ErrCorrupt)
	require.ErrorIs(t, p.propose(&shardpb.Command{Kind: shardpb.Kind_LEASE_GRANT, Epoch: 1}).Err, shard.ErrCorrupt)
	require.NoError(t, p.propose(&shardpb.Command{Kind: shardpb.Kind_CLOSE, Epoch: 1, Revision: 1}).Err)
	_, err := p.replica.SumUp(t.Context())
	require.NoError(t, err)
	require.Equal(t, "1", p.get("a"))
	p.replica.Dispute(false)
	p.put("a", "2")
}

// sumUp has the replica summed up and waits for that.
func (p *process) sumUp() Checksum {
	p.t.Helper()
	index, err := p.replica.SumUp(p.t.Context())
	require.NoError(p.t, err)
	var c Checksum
	require.Eventually(p.t, func() bool {
		c, _ = p.replica.Checksum()
		return c.Done
	}, patience, 1)
	require.Equal(p.t, index, c.Index)
	return c
}

// The sum is of the moment that was asked for, whatever is written while it is made, and
// tells of bytes that cannot be read.
func TestSumsAreOfTheirMoment(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	_, any := p.replica.Checksum()
	require.False(t, any)
	rev := p.put("a", "1")
	first := p.sumUp()
	require.EqualValues(t, 1, first.Versions)
	second := p.sumUp()
	require.NotEqual(t, first.Sum, second.Sum, "it has applied more, and says so")

	// As of a moment before it: what the summing has pinned does not change.
	image := p.replica.image(p.replica.View())
	c := &Checksum{Index: p.replica.View().Applied}
	p.replica.checksum.Store(c)
	p.put("a", "2")
	p.put("b", "1")
	p.host.summing.begin(&sum{replica: p.replica, begun: c, image: image})
	require.Eventually(t, func() bool { c, _ := p.replica.Checksum(); return c.Done }, patience, 1)
	last, _ := p.replica.Checksum()
	require.Equal(t, second.Sum, last.Sum)

	b := p.engine.NewBatch()
	require.NoError(t, b.Set(engine.AppendDataKey(nil, []byte("a"), rev), []byte("nonsense"), pebble.NoSync))
	require.NoError(t, p.engine.Commit(b))
	require.NoError(t, b.Close())
	require.Contains(t, p.sumUp().Damage, "corrupt")
}

// What a disk could not read now is read elsewhere, and is no damage: nobody is told to compare replicas.
func TestADiskThatDoesNotReadIsNoDamage(t *testing.T) {
	r := &Replica{host: &Host{cfg: HostConfig{Doubted: func(shard.ID) { t.Error("it was taken for damage") }}}}
	err := r.Doubt(fmt.Errorf("read a block: %w", &fs.PathError{Op: "read", Path: "000007.sst", Err: syscall.EIO}))
	require.ErrorIs(t, err, shard.ErrUnavailable)
	require.ErrorContains(t, err, "000007.sst")
	other := errors.New("some other reason")
	require.Equal(t, other, r.Doubt(other))
}
