package auth

import (
	"context"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Leases tells which keys are attached to leases; router.Router is one. Its errors are passed on as they are.
type Leases interface {
	TimeToLive(ctx context.Context, req *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error)
	Leases(ctx context.Context, req *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error)
}

// Lease permits reading, or ending and prolonging, a lease: to those who may read, or write, all of its keys.
func (c *Caller) Lease(ctx context.Context, from Leases, lease int64, write bool) error {
	if err := c.User(); err != nil || lease == 0 {
		return err
	}
	permitted := c.Read
	if write {
		permitted = c.Write
	}
	if permitted([]byte{0}, []byte{0}) == nil {
		return nil // also for root; the keys need not be asked for, whose shards may be out of reach
	}
	resp, err := from.TimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: lease, Keys: true})
	if err != nil {
		return err
	}
	for _, key := range resp.Keys {
		if err := permitted(key, nil); err != nil {
			return err
		}
	}
	return c.User()
}

// AllLeases permits listing all leases: to those who may read all keys that are attached to any.
func (c *Caller) AllLeases(ctx context.Context, from Leases) error {
	if err := c.User(); err != nil || c.IsRoot() {
		return err
	}
	resp, err := from.Leases(ctx, &pb.LeaseLeasesRequest{})
	if err != nil {
		return err
	}
	for _, l := range resp.Leases {
		if err := c.Lease(ctx, from, l.ID, false); err != nil {
			return err
		}
	}
	return nil
}

const (
	// askedAtOnce bounds the leases of one request whose keys are asked for at the same time.
	askedAtOnce = 64
	// askedBriefly is how long a lease counts for askedAtOnce: those that get no answer do not keep the others waiting.
	askedBriefly = 20 * time.Millisecond
	// askedFor is how long an answer is waited for: a fraction of a TTL, as the renewal of the other leases waits for it too.
	askedFor = time.Second
)

// Renewable says of each lease why the caller may not keep it alive, as that keeps its keys: nil if the caller may, a
// refusal, or another error if that is not known now. The error is that of a caller who may do nothing.
func (c *Caller) Renewable(ctx context.Context, from Leases, leases []int64) (map[int64]error, error) {
	leases = slices.Compact(slices.Sorted(slices.Values(leases)))
	outcome := make([]error, len(leases))
	turns := make(chan struct{}, askedAtOnce)
	var wg sync.WaitGroup
	for i, lease := range leases {
		turns <- struct{}{}
		wg.Go(func() {
			leave := sync.OnceFunc(func() { <-turns })
			defer leave()
			defer time.AfterFunc(askedBriefly, leave).Stop()
			ctx, cancel := context.WithTimeout(ctx, askedFor)
			defer cancel()
			outcome[i] = c.Lease(ctx, from, lease, true)
		})
	}
	wg.Wait()
	if err := c.User(); err != nil { // it may have changed meanwhile, and then says more than what failed before
		return nil, err
	}
	why := make(map[int64]error, len(leases))
	for i, lease := range leases {
		why[lease] = outcome[i]
	}
	return why, nil
}

// Attached checks the leases that were collected.
func (n *Needs) Attached(ctx context.Context, from Leases) error {
	slices.Sort(n.Leases)
	for _, lease := range slices.Compact(n.Leases) {
		if err := n.Lease(ctx, from, lease, true); err != nil {
			return err
		}
	}
	return nil
}
