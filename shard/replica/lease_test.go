package replica

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

func body(m proto.Message) []byte {
	data, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return data
}

func (p *process) lease(kind shardpb.Kind, c *shardpb.LeaseCommand) (*shardpb.LeaseAnswer, error) {
	p.t.Helper()
	r := p.propose(&shardpb.Command{Kind: kind, Epoch: 1, Body: body(c)})
	if r.Err != nil {
		return nil, r.Err
	}
	return r.Response.(*shardpb.LeaseAnswer), nil
}

func (p *process) grant(id, ttl int64) {
	p.t.Helper()
	_, err := p.lease(shardpb.Kind_LEASE_GRANT, &shardpb.LeaseCommand{Lease: id, Ttl: ttl})
	require.NoError(p.t, err)
}

func (p *process) putWithLease(key string, id int64) {
	p.t.Helper()
	r := p.propose(&shardpb.Command{Kind: shardpb.Kind_PUT, Epoch: 1, Body: body(&pb.PutRequest{Key: []byte(key), Lease: id})})
	require.NoError(p.t, r.Err)
}

// left is the time to live; negative: none.
func (p *process) left(id int64) time.Duration {
	p.t.Helper()
	s, err := p.replica.LeaseStatus(p.t.Context(), id)
	require.NoError(p.t, err)
	return s.TTL
}

func (p *process) keepAlive(id int64) int64 {
	p.t.Helper()
	ttls, err := p.replica.KeepAlive(p.t.Context(), []int64{id})
	require.NoError(p.t, err)
	return ttls[0]
}

// A lease lives its TTL after each renewal, is then named to be revoked, and is not
// renewed any more (L7).
func TestLeaseLivesAndExpires(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	require.Empty(t, p.replica.DueLeases(9))
	require.Zero(t, p.keepAlive(7), "there is no such lease")
	require.Negative(t, p.left(7))
	require.Zero(t, p.replica.machine.Leases().Len())

	p.grant(7, 10)
	p.grant(8, 20)
	p.putWithLease("b", 7)
	p.putWithLease("a", 7)
	require.Equal(t, 10*time.Second, p.left(7))
	p.clock.advance(6 * time.Second)
	require.Equal(t, 4*time.Second, p.left(7))
	require.Equal(t, int64(10), p.keepAlive(7))
	require.Equal(t, 10*time.Second, p.left(7))

	list, err := p.replica.Leases(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, []int64{7, 8}, []int64{list[0].ID, list[1].ID})
	require.Equal(t, []shard.Span{shard.Everything()}, list[0].Spans)
	keys, err := p.replica.LeaseKeys(7)
	require.NoError(t, err)
	require.Equal(t, [][]byte{[]byte("a"), []byte("b")}, keys)

	p.clock.advance(10 * time.Second)
	require.Zero(t, p.keepAlive(7))
	due := p.replica.DueLeases(9)
	require.Len(t, due, 1)
	require.Equal(t, int64(7), due[0].ID)
	require.Zero(t, p.keepAlive(7))
	require.Empty(t, p.replica.DueLeases(9))
	answer, err := p.lease(shardpb.Kind_LEASE_REVOKE, &shardpb.LeaseCommand{Lease: 7, Incarnation: due[0].Incarnation, Reign: due[0].Reign})
	require.NoError(t, err)
	require.True(t, answer.Gone)
	require.Equal(t, "", p.get("a"))
	require.Negative(t, p.left(7))

	p.grant(7, 5)
	require.Equal(t, int64(5), p.keepAlive(7), "another lease of the same ID")
}

// Whoever begins another reign makes void what was found and promised in the last (L3):
// the expiry, and a renewal that was not acknowledged yet.
func TestAnotherReignEndsThis(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	p.grant(7, 10)
	reign, err := p.replica.reign(t.Context())
	require.NoError(t, err)
	p.clock.advance(11 * time.Second) // an election timeout is a tenth of a second here
	due := p.replica.DueLeases(1)
	require.Len(t, due, 1)
	require.Equal(t, reign, due[0].Reign)

	_, err = p.lease(shardpb.Kind_LEASE_REIGN, &shardpb.LeaseCommand{})
	require.NoError(t, err)
	_, err = p.lease(shardpb.Kind_LEASE_REVOKE, &shardpb.LeaseCommand{Lease: 7, Reign: due[0].Reign})
	require.ErrorIs(t, err, shard.ErrLeaseRace)
	_, err = p.replica.statusAfterBarrier(t.Context(), reign, []int64{7})
	require.ErrorIs(t, err, shard.ErrUnavailable)

	// The result of a REIGN can come after a later one was applied.
	late := shard.Result{Response: &shardpb.LeaseAnswer{Reign: reign}}
	p.replica.beginReign(&reignStart{done: make(chan struct{})}, p.replica.Term(), late)
	_, err = p.replica.statusAfterBarrier(t.Context(), reign, []int64{7})
	require.ErrorIs(t, err, shard.ErrUnavailable)

	require.Equal(t, int64(10), p.keepAlive(7), "in a reign of its own again")
	require.Greater(t, p.replica.reigning.lessor.Reign(), reign+1)
	require.Equal(t, 10*time.Second+100*time.Millisecond, p.left(7), "never earlier than it was (L8)")
}

// A leader that nobody asks begins to look for expired leases by itself.
func TestLeasesExpireUnasked(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	p.grant(7, 10)
	require.Empty(t, p.replica.DueLeases(9))
	require.Eventually(t, func() bool {
		p.clock.advance(11 * time.Second)
		return len(p.replica.DueLeases(9)) == 1
	}, patience, time.Millisecond)
}

// Every renewal takes a read barrier that began after it, and those that wait share one,
// whether they come together or each alone.
func TestKeepAlivesShareBarriers(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	p.grant(7, 10)
	require.Equal(t, int64(10), p.keepAlive(7))
	before := p.rounds()
	require.Equal(t, int64(10), p.keepAlive(7))
	require.Greater(t, p.rounds(), before)

	// As if a round were under way for as long as it takes all of them to come.
	barriers, own := p.host.barriers, &p.replica.barrier
	require.Eventually(t, func() bool {
		barriers.mu.Lock()
		defer barriers.mu.Unlock()
		held := !own.busy
		own.busy = true
		return held
	}, patience, time.Millisecond)
	before = p.rounds()
	const many = 500
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			ttls, err := p.replica.KeepAlive(t.Context(), []int64{7, 8, 7})
			if err != nil || !slices.Equal(ttls, []int64{10, 0, 10}) {
				t.Errorf("renewed to %d: %v", ttls, err)
			}
		})
	}
	require.Eventually(t, func() bool {
		barriers.mu.Lock()
		defer barriers.mu.Unlock()
		return own.next != nil && own.next.reads == many
	}, patience, time.Millisecond)
	barriers.mu.Lock()
	barriers.enqueue(own)
	barriers.mu.Unlock()
	wg.Wait()
	require.Equal(t, before+1, p.rounds())
}

// Another term begins another reign, in which leases get all of their time.
func TestEachTermReigns(t *testing.T) {
	dir := t.TempDir()
	p := openProcess(t, dir, 1, Knobs{})
	p.startNew()
	p.grant(7, 10)
	reign, err := p.replica.reign(t.Context())
	require.NoError(t, err)
	p.clock.advance(9 * time.Second)
	p.close()

	p = openProcess(t, dir, 2, Knobs{})
	defer func() { p.close() }()
	p.start()
	require.Equal(t, 10100*time.Millisecond, p.left(7))
	require.Equal(t, reign+1, p.replica.machine.Leases().Reign())
	p.replica.reigning.Lock()
	p.replica.reigning.term--
	p.replica.reigning.Unlock()
	require.Equal(t, int64(10), p.keepAlive(7))
	require.Equal(t, reign+2, p.replica.machine.Leases().Reign())
}

// A replica that does not lead tells nothing of how long leases live.
func TestOnlyLeadersMeasure(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	p.grant(7, 1)
	idle := &Replica{id: 99, replicaID: 1, host: p.host, machine: p.replica.machine}
	_, err := idle.KeepAlive(t.Context(), []int64{7})
	var not *shard.NotLeaderError
	require.ErrorAs(t, err, &not)
	_, err = idle.LeaseStatus(t.Context(), 7)
	require.ErrorAs(t, err, &not)
	_, err = idle.Leases(t.Context())
	require.ErrorAs(t, err, &not)
	p.clock.advance(time.Hour)
	require.Empty(t, idle.DueLeases(9))
}

// A leader of another home sends the question on.
func TestLeaseOfAnotherHome(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.start()
	_, err := p.replica.KeepAlive(t.Context(), []int64{1})
	require.ErrorIs(t, err, shard.ErrUnavailable, "not initialised")
	d := shard.Descriptor{ID: testShard, Epoch: 1, Generation: 1, Span: shard.Span{Start: []byte("a"), End: []byte("b")}}
	require.NoError(t, p.propose(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: d.Proto()}).Err)
	_, err = p.replica.KeepAlive(t.Context(), []int64{1})
	var wrong *shard.WrongShardError
	require.ErrorAs(t, err, &wrong)
	require.Len(t, wrong.Descriptors, 1)
}

// index lists the lease's keys in the store's index, whatever their versions say.
func (p *process) index(id int64) (keys [][]byte) {
	lower, upper := engine.AttachedBounds(id, shard.Everything())
	it, err := p.engine.NewReader().NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	require.NoError(p.t, err)
	for it.First(); it.Valid(); it.Next() {
		_, key, ok := engine.DecodeAttachedKey(it.Key())
		require.True(p.t, ok)
		keys = append(keys, bytes.Clone(key))
	}
	require.NoError(p.t, it.Close())
	return keys
}

// Snapshots carry leases, registrations and fences, and rebuild the index of attached keys.
func TestSnapshotBringsLeases(t *testing.T) {
	from, sm := sender(t)
	from.grant(7, 10)
	from.grant(8, 10)
	from.grant(9, 10)
	for _, key := range []string{"a", "b", "c"} {
		from.putWithLease(key, 7)
	}
	from.put("b", "detached")
	from.putWithLease("d", 9)
	_, err := from.lease(shardpb.Kind_LEASE_REVOKE, &shardpb.LeaseCommand{Lease: 9})
	require.NoError(t, err)
	want := from.replica.machine.Leases().State()
	prepared, err := sm.PrepareSnapshot()
	require.NoError(t, err)
	from.grant(10, 10) // after the moment of the snapshot
	from.putWithLease("e", 7)
	var stream bytes.Buffer
	require.NoError(t, sm.SaveSnapshot(prepared, &stream, nil))

	to := openProcess(t, t.TempDir(), 2, Knobs{})
	defer func() { to.close() }()
	to.startNew()
	for id := int64(7); id < 20; id++ { // a past of its own that must go
		to.grant(id, 99)
		to.putWithLease("e", id)
		to.putWithLease("f", id)
	}
	got := &stateMachine{replica: to.replica}
	require.NoError(t, got.RecoverFromSnapshot(&stream, nil))
	check := func(r *Replica) {
		require.True(t, proto.Equal(want, r.machine.Leases().State()))
		for id := int64(7); id < 20; id++ {
			keys, err := r.LeaseKeys(id)
			require.NoError(t, err)
			var want [][]byte
			if id == 7 {
				want = [][]byte{[]byte("a"), []byte("c")}
			}
			require.Equal(t, want, keys)
			require.Equal(t, want, to.index(id), "nothing else is left in the index")
		}
	}
	check(to.replica)
	check(receiver(t, to, testReplica).replica) // as stored
}

// L9: the time of leases stands still while leadership is handed over, and goes on with what
// was left, also when the attempt fails. From the will on nothing is renewed in the reign
// that it ends; what was renewed before is in it, acknowledged or not (L3).
func TestLeasesAreNotProlongedByAHandover(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	reign, err := p.replica.reign(t.Context())
	require.NoError(t, err)
	for id := int64(6); id < 10; id++ {
		p.grant(id, 10)
	}
	p.clock.advance(6 * time.Second)
	require.Equal(t, int64(10), p.keepAlive(7))
	require.True(t, p.replica.reigning.lessor.Renew(8, p.clock.Now())) // on the way, before its barrier

	absent := errors.New("not there")
	err = p.replica.HandOver(t.Context(), &scriptedHeir{succeed: func(context.Context, Handover) error {
		_, err := p.replica.statusAfterBarrier(t.Context(), reign, []int64{8})
		require.ErrorIs(t, err, shard.ErrUnavailable)
		impatient, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = p.replica.KeepAlive(impatient, []int64{9})
		require.ErrorIs(t, err, context.Canceled, "nobody measures leases")
		require.NotNil(t, p.replica.machine.Leases().State().Will)
		return absent
	}})
	require.ErrorIs(t, err, absent)
	p.clock.advance(time.Hour)

	left := func(want time.Duration, id int64) {
		t.Helper()
		require.Equal(t, want, p.left(id))
	}
	left(4*time.Second, 6)
	left(10*time.Second, 7)
	left(10*time.Second, 8)
	left(4*time.Second, 9)
	p.clock.advance(4 * time.Second)
	require.Len(t, p.replica.DueLeases(9), 2)
	require.Nil(t, p.replica.machine.Leases().State().Will)
}

// From the will to the end of the attempt no reign begins here, whoever asks: it would take
// what is meant for the next leader. Writes go on.
func TestNoReignBeginsUntilLeadershipIsSettled(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	require.Zero(t, p.keepAlive(7))
	p.grant(7, 10)
	reign := p.replica.machine.Leases().Reign()
	resume, err := p.replica.abdicate(t.Context())
	require.NoError(t, err)
	require.Empty(t, p.replica.DueLeases(9))
	renewed := make(chan error, 1)
	go func() {
		_, err := p.replica.KeepAlive(t.Context(), []int64{7})
		renewed <- err
	}()
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = p.replica.abdicate(impatient)
	require.ErrorIs(t, err, context.Canceled, "one at a time")
	require.Empty(t, p.replica.DueLeases(9))
	p.put("a", "1") // behind whatever was proposed before
	require.Equal(t, reign, p.replica.machine.Leases().Reign())
	require.NotNil(t, p.replica.machine.Leases().State().Will)
	resume()
	if err := <-renewed; err != nil { // it may have come only now
		require.ErrorIs(t, err, shard.ErrUnavailable)
	}
	require.Equal(t, int64(10), p.keepAlive(7))
	require.Equal(t, reign+1, p.replica.machine.Leases().Reign())
}

// A leader that never measured leases leaves the will of the one before as it is.
func TestAWillOutlivesALeaderWhoDidNothing(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	require.Zero(t, p.keepAlive(7))
	p.grant(7, 10)
	p.clock.advance(time.Second)
	for range 2 {
		absent := errors.New("not there")
		require.ErrorIs(t, p.replica.HandOver(t.Context(), &scriptedHeir{succeed: func(context.Context, Handover) error { return absent }}), absent)
	}
	require.Equal(t, 9*time.Second, p.left(7))
}
