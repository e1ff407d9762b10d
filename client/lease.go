package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/shard"
)

// Grant creates a lease that expires ttl after it was last renewed, and returns its ID. The cluster
// may let it live longer, never shorter; ttl is rounded up to whole seconds.
func (c *Client) Grant(ctx context.Context, ttl time.Duration) (int64, error) {
	seconds := int64((ttl + time.Second - 1) / time.Second)
	var id int64
	_, err := c.askForLease(ctx, "grant", func(ctx context.Context, node pb.LeaseClient) error {
		resp, err := node.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: seconds})
		id = resp.GetID()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("grant a lease: %w", err)
	}
	return id, nil
}

// Revoke ends a lease and deletes the keys attached to it.
func (c *Client) Revoke(ctx context.Context, lease int64) error {
	asked, err := c.askForLease(ctx, "revoke", func(ctx context.Context, node pb.LeaseClient) error {
		_, err := node.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease})
		return err
	})
	if asked > 1 && errors.Is(err, shard.ErrLeaseNotFound) {
		return nil // an earlier attempt, whose answer was lost, has revoked it
	}
	if err != nil {
		return fmt.Errorf("revoke lease %x: %w", lease, err)
	}
	return nil
}

// leaseWait is how long a node may take to grant or revoke a lease before another is asked: its shard may be
// electing a leader.
const leaseWait = 3 * time.Second

// askForLease asks the node that supplies the map. If that node cannot be reached or does not answer in time, it
// asks again, each time another node if it can. Repeating is harmless: a lease whose grant was lost expires by
// itself, and a revoked lease is not revoked twice. asked is the number of attempts.
func (c *Client) askForLease(ctx context.Context, what string, ask func(context.Context, pb.LeaseClient) error) (asked int, err error) {
	began := time.Now()
	var node *peer.Client
	for pause := c.cfg.Backoff.Min; ; pause = min(2*pause, c.cfg.Backoff.Max) {
		next, closed := c.anyNode(ctx, node)
		if closed != nil && asked == 0 {
			return 0, closed // nothing was sent
		}
		if closed == nil {
			asked++
			node = next
			attempt, cancel := context.WithTimeout(ctx, leaseWait)
			err = ask(attempt, pb.NewLeaseClient(node.Conn()))
			cancel()
		}
		if err == nil {
			return asked, nil
		}
		lost := status.Code(err) == codes.Unavailable || status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil
		again := closed == nil && lost && time.Since(began) < router.RequestTimeout
		if !again || !c.rest(ctx, pause) {
			err = leaseError(what, err)
			if asked > 1 { // an attempt before this one may have been carried out (X1)
				err = unknownLease(what, err)
			}
			return asked, err
		}
	}
}

// rest pauses, and reports whether to continue.
func (c *Client) rest(ctx context.Context, pause time.Duration) bool {
	select {
	case <-time.After(pause):
		return true
	case <-ctx.Done():
	case <-c.closed:
	}
	return false
}

// leaseError translates an answer of etcd's Lease service into this package's errors. An error that
// implies neither success nor refusal means an unknown outcome.
func leaseError(what string, err error) error {
	switch told := rpctypes.Error(err); {
	case errors.Is(told, rpctypes.ErrTooManyRequests):
		return shard.ErrOverloaded
	case errors.Is(told, rpctypes.ErrNoSpace):
		return shard.ErrNoSpace
	}
	switch status.Code(err) {
	case codes.NotFound:
		return shard.ErrLeaseNotFound
	case codes.OutOfRange, codes.InvalidArgument, codes.FailedPrecondition, codes.PermissionDenied, codes.Unauthenticated:
		return rpctypes.Error(err)
	}
	return unknownLease(what, err)
}

// unknownLease is the error of a request about a lease that may have been carried out.
func unknownLease(what string, err error) error {
	if errors.Is(err, shard.ErrUnknownOutcome) {
		return err
	}
	return &UnknownOutcomeError{Op: what, Err: fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, err)}
}

// Renew renews a lease once and returns its remaining time, if nobody renews it again. The request
// goes directly to the leader that keeps the lease's deadline.
func (c *Client) Renew(ctx context.Context, lease int64) (time.Duration, error) {
	ttls, _, err := c.router.KeepAlive(ctx, []int64{lease})
	if err != nil {
		return 0, fmt.Errorf("renew lease %x: %w", lease, c.ended(err))
	}
	if ttls[0] == router.LeaseForbidden {
		return 0, fmt.Errorf("renew lease %x: %w", lease, rpctypes.ErrGRPCPermissionDenied)
	}
	if ttls[0] <= 0 {
		return 0, fmt.Errorf("renew lease %x: %w", lease, shard.ErrLeaseNotFound)
	}
	return time.Duration(ttls[0]) * time.Second, nil
}

// Session is a lease that is renewed until the session is closed. It is over when the lease may
// have expired: from then on somebody else may hold what it held.
type Session struct {
	client *Client
	lease  int64
	ttl    time.Duration
	cancel context.CancelFunc
	done   chan struct{}
}

// NewSession begins a session of a lease as Grant makes it. ctx bounds only its start.
func (c *Client) NewSession(ctx context.Context, ttl time.Duration) (*Session, error) {
	began := time.Now()
	lease, err := c.Grant(ctx, ttl)
	if err != nil {
		return nil, err
	}
	live, cancel := context.WithCancel(context.Background())
	s := &Session{client: c, lease: lease, ttl: ttl, cancel: cancel, done: make(chan struct{})}
	if !c.spawn(func() { s.run(live, began) }) {
		cancel()
		return nil, ErrClosed
	}
	return s, nil
}

// Lease is the ID of the session's lease, for WithLease.
func (s *Session) Lease() int64 { return s.lease }

// Done is closed when the session is over.
func (s *Session) Done() <-chan struct{} { return s.done }

// Close ends the session and its lease.
func (s *Session) Close(ctx context.Context) error {
	s.cancel()
	<-s.done
	if err := s.client.Revoke(ctx, s.lease); err != nil && !errors.Is(err, shard.ErrLeaseNotFound) {
		return err
	}
	return nil
}

// run renews the lease. renewed is when the last successful renewal was sent: the lease's TTL began
// after it.
func (s *Session) run(ctx context.Context, renewed time.Time) {
	defer close(s.done)
	defer s.cancel()
	for pause := s.ttl / 3; ; {
		select {
		case <-time.After(min(pause, time.Until(renewed.Add(s.ttl)))):
		case <-ctx.Done():
			return
		case <-s.client.closed:
			return
		}
		sent := time.Now()
		if !sent.Before(renewed.Add(s.ttl)) {
			return
		}
		attempt, cancel := context.WithDeadline(ctx, renewed.Add(s.ttl))
		_, err := s.client.Renew(attempt, s.lease)
		cancel()
		switch {
		case err == nil:
			renewed, pause = sent, s.ttl/3
		case errors.Is(err, shard.ErrLeaseNotFound):
			return
		default:
			pause = s.ttl / 20
		}
	}
}
