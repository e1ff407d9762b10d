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
			wg.Go(func() {
				ttl, err := n.renew(t.Context(), place(2, 1), node, lease)
				require.NoError(t, err)
				require.Equal(t, lease*(1-lease%2), ttl)
			})
		}
		renew(1, 4)
		synctest.Wait()
		const many = renewalsMax + 100
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
		require.Equal(t, []int{1, 1, renewalsMax, 100}, sizes)
		require.ElementsMatch(t, []shard.NodeID{1, 3, 1, 1}, h.nodes)
		synctest.Wait()
		n.mu.Lock()
		require.Empty(t, n.mu.waiting, "nothing is kept of a home that nobody asks")
		n.mu.Unlock()
	})
}

// A request that fails fails for those who shared it; who leaves does not disturb them.
func TestRenewalsFailTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &home{err: errors.New("no leader")}
		n := newRenewer(h.ask)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := n.renew(ctx, place(2, 1), 1, 4)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var wg sync.WaitGroup
		for id := range int64(3) {
			wg.Go(func() {
				_, err := n.renew(t.Context(), place(2, 1), 1, id)
				require.ErrorIs(t, err, h.err)
			})
		}
		wg.Wait()
		require.Len(t, h.asked, 2)

		go func() { _, _ = n.renew(t.Context(), place(2, 1), 1, 4) }()
		synctest.Wait()
		n.stop()
		require.Len(t, h.asked, 2, "it does not wait for the answer")
	})
}
