package auth

import (
	"context"
	"slices"
	"sync"

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

// askedAtOnce bounds the leases of one request whose keys are asked for at the same time.
const askedAtOnce = 16

// Renewable returns the leases that the caller may keep alive, as that keeps their keys, in the given order, and why
// not the first of the others.
func (c *Caller) Renewable(ctx context.Context, from Leases, leases []int64) (permitted []int64, refused error) {
	outcome := make([]error, len(leases))
	turns := make(chan struct{}, askedAtOnce)
	var wg sync.WaitGroup
	for i, lease := range leases {
		turns <- struct{}{}
		wg.Go(func() {
			outcome[i] = c.Lease(ctx, from, lease, true)
			<-turns
		})
	}
	wg.Wait()
	for i, lease := range leases {
		switch err := outcome[i]; {
		case err == nil:
			permitted = append(permitted, lease)
		case refused == nil:
			refused = err
		}
	}
	return permitted, refused
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
