package router

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/shard"
)

// TestRandomLeases lets clients grant, attach to and revoke few leases while shards split,
// merge and change leaders and messages get lost. The world itself sees to T6 and T7; here
// it is held against what each client was told.
func TestRandomLeases(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5, 6}
	if *seedFlag != 0 {
		seeds = []uint64{*seedFlag}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Logf("again: go test ./router -run TestRandomLeases -seed=%d -steps=%d", seed, *stepsFlag)
			synctest.Test(t, func(t *testing.T) { runRandomLeases(t, seed, *stepsFlag) })
		})
	}
}

func runRandomLeases(t *testing.T, seed uint64, steps int) {
	w := newWorld(t, seed, "d", "m", "t")
	w.delayed, w.faults = true, 40
	w.skew[2], w.skew[3] = 4000, -900
	tr := &leaseTrial{trial: trial{w: w}}
	stop := make(chan struct{})
	var chaos, clients sync.WaitGroup
	chaos.Go(func() { w.disturb(stop) })
	for i := range 6 {
		clients.Go(func() { tr.client(i, steps) })
	}
	clients.Wait()
	close(stop)
	chaos.Wait()
	bubble.Pass(2 * RequestTimeout)
	synctest.Wait()

	w.locked(func() {
		for _, s := range w.shards {
			s.leader = 1
		}
	})
	// What was begun and not finished is finished, as by the leaders of the homes.
	r, _ := w.newRouter(1, Knobs{})
	for id := int64(1); id <= leaseIDs; id++ {
		if record := w.leases[id]; record != nil && record.revoking {
			require.NoError(t, r.Expire(t.Context(), id, record.incarnation, w.reign))
			require.Nil(t, w.leases[id])
		}
	}
	w.locked(tr.checkAll)
	t.Logf("%d requests to shards, %d lives of leases, %d attached, %d refused, %d revoked, errors %v", len(w.sent), len(w.lives), tr.attached, tr.refused, tr.revoked, tr.kinds)
	require.Empty(t, w.broken)
	require.Positive(t, tr.attached)
	require.Positive(t, tr.refused)
	require.Positive(t, tr.revoked)
}

// leaseIDs is how many leases the clients share.
const leaseIDs = 5

type leaseTrial struct {
	trial
	attached, refused, revoked int
}

func (tr *leaseTrial) client(n, steps int) {
	w := tr.w
	rng := rand.New(rand.NewPCG(w.seed, 2000+uint64(n)))
	router, _ := w.newRouter(shard.NodeID(n%4), Knobs{})
	key := func() []byte { return fmt.Appendf(nil, "%c%c", 'a'+rng.IntN(26), 'a'+rng.IntN(3)*11) }
	for i := range steps {
		op := &operation{id: n*10_000 + i + 1}
		ctx := context.WithValue(context.Background(), operationKey{}, op)
		cancel := func() {}
		if rng.IntN(5) == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(1+rng.IntN(20_000_000)))
		}
		w.locked(func() { w.clock++; op.begin = w.clock })
		lease := 1 + rng.Int64N(leaseIDs)
		var err error
		switch rng.IntN(8) {
		case 0, 1:
			_, err = router.Grant(ctx, &pb.LeaseGrantRequest{ID: lease, TTL: 60})
		case 2:
			err = tr.revoke(ctx, router, op, lease)
		case 3:
			err = tr.renew(ctx, router, op, lease)
		default:
			err = tr.attach(ctx, router, op, key(), lease)
		}
		tr.ended(ctx, op, err)
		cancel()
	}
}

// attach puts a key. A refusal must have had a reason.
func (tr *leaseTrial) attach(ctx context.Context, r *Router, op *operation, key []byte, lease int64) error {
	value := fmt.Sprint("value ", op.id)
	_, err := r.Put(ctx, &pb.PutRequest{Key: key, Value: []byte(value), Lease: lease})
	tr.later(func() {
		tr.once(op, err, key, value)
		switch {
		case err == nil:
			tr.attached++
		case errors.Is(err, shard.ErrLeaseNotFound):
			tr.refused++
			if tr.lived(op, lease) {
				tr.w.violation("operation %d was refused lease %d, which lived all the time", op.id, lease)
			}
		}
	})
	return err
}

// lived reports whether one lease of the ID was there from the operation's begin to its end.
func (tr *leaseTrial) lived(op *operation, lease int64) bool {
	for _, l := range tr.w.lives {
		if l.lease == lease && l.from < op.begin && (l.to == 0 || l.to > op.end) {
			return true
		}
	}
	return false
}

// revoke must leave no key of a lease that was there before.
func (tr *leaseTrial) revoke(ctx context.Context, r *Router, op *operation, lease int64) error {
	_, err := r.Revoke(ctx, &pb.LeaseRevokeRequest{ID: lease})
	if err != nil {
		return err
	}
	tr.later(func() { tr.revoked++ })
	tr.w.locked(func() {
		for key, versions := range tr.w.versions {
			if last := versions[len(versions)-1]; !last.deleted && last.lease.id == lease && last.lease.incarnation < int64(op.begin) {
				tr.w.violation("operation %d revoked lease %d and left key %q", op.id, lease, key)
			}
		}
		if record := tr.w.leases[lease]; record != nil && record.incarnation < int64(op.begin) {
			tr.w.violation("operation %d revoked lease %d, which is still there", op.id, lease)
		}
	})
	return nil
}

// renew must find a lease that is there.
func (tr *leaseTrial) renew(ctx context.Context, r *Router, op *operation, lease int64) error {
	ttls, _, err := r.KeepAlive(ctx, []int64{lease})
	if err == nil && ttls[0] == 0 {
		tr.later(func() {
			if tr.lived(op, lease) {
				tr.w.violation("operation %d did not find lease %d, which lived all the time", op.id, lease)
			}
		})
	}
	return err
}
