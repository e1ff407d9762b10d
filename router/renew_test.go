package router

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// home renews what it is asked to, each request in 10 ms. An odd lease does not live.
type home struct {
	mu    sync.Mutex
	asked [][]int64
	nodes []shard.NodeID
	err   error
}

func (h *home) ask(ctx context.Context, _ Place, node shard.NodeID, _ routerpb.Op, q *routerpb.LeaseQuery) (*routerpb.LeaseStatus, error) {
	select {
	case <-time.After(10 * time.Millisecond): // in the bubble's time
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked, h.nodes = append(h.asked, q.Leases), append(h.nodes, node)
	status := &routerpb.LeaseStatus{}
	for _, id := range q.Leases {
		status.Ttls = append(status.Ttls, id*(1-id%2))
	}
	return status, h.err
}

func TestRenewalsShareRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &home{}
		n := newRenewer(h.ask)
		var wg sync.WaitGroup
		renew := func(node shard.NodeID, lease int64) {
			r := renewalOf(node, lease, lease+1)
			n.begin(r)
			wg.Go(func() {
				require.NoError(t, <-r.done)
				require.Equal(t, []int64{lease * (1 - lease%2), (lease + 1) * (lease % 2)}, r.ttls)
			})
		}
		renew(1, 4)
		synctest.Wait()
		const many = RenewalsMax/2 + 50
		for id := range int64(many) {
			renew(1, id)
		}
		synctest.Wait()
		renew(3, 8) // whoever else leads now is not waited for
		wg.Wait()
		var sizes []int
		for _, leases := range h.asked {
			sizes = append(sizes, len(leases))
		}
		require.Equal(t, []int{2, 2, RenewalsMax, 100}, sizes)
		require.ElementsMatch(t, []shard.NodeID{1, 3, 1, 1}, h.nodes)
		synctest.Wait()
		n.mu.Lock()
		require.Empty(t, n.mu.waiting, "nothing is kept of a home that nobody asks")
		n.mu.Unlock()
	})
}

func renewalOf(node shard.NodeID, leases ...int64) *renewal {
	return &renewal{key: renewalKey{2, 1, node}, at: place(2, 1), leases: leases}
}

// A request that fails fails for those who shared it.
func TestRenewalsFailTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &home{err: errors.New("no leader")}
		n := newRenewer(h.ask)
		renewals := []*renewal{renewalOf(1, 4), renewalOf(1, 5), renewalOf(1, 6)}
		for _, r := range renewals {
			n.begin(r)
			synctest.Wait()
		}
		for _, r := range renewals {
			require.ErrorIs(t, <-r.done, h.err)
		}
		require.Len(t, h.asked, 2)

		last := renewalOf(1, 4)
		n.begin(last)
		synctest.Wait()
		n.stop()
		require.ErrorIs(t, <-last.done, context.Canceled)
		require.Len(t, h.asked, 2, "it does not wait for the answer")
	})
}
