package native

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/auth"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// user permits what any user may do.
func (s *Server) user(c *auth.Caller) error {
	if s.cfg.Auth.Open() {
		return nil
	}
	return c.User()
}

// forClient is an error of package auth for a native client. That of a node that does not know who may do what sends the
// client to another node.
func forClient(err error) error {
	if err != nil && status.Code(err) == codes.Unavailable {
		return fmt.Errorf("%w: %s", shard.ErrUnavailable, status.Convert(err).Message())
	}
	return err
}

// permitRead checks that the stream's user may make a read, as its twin in etcd's API would be checked. Which keys and
// leases there are is checked later (Read).
func (g *gate) permitRead(req *router.Request) error {
	if g.cfg.Auth.Open() {
		return nil
	}
	var err error
	switch m := req.Message.(type) {
	case *pb.RangeRequest:
		err = g.caller.ReadSpan(shard.RequestSpan(m.Key, m.RangeEnd))
	case *pb.TxnRequest:
		n := auth.Needs{Caller: g.caller}
		err = n.Txn(m)
	default:
		err = g.caller.User()
	}
	return forClient(err)
}

// aboutLeases checks and carries out a read about leases.
func (g *gate) aboutLeases(ctx context.Context, req *router.Request, do func() (*router.Reply, error)) (*router.Reply, error) {
	q, _ := req.Message.(*routerpb.LeaseQuery)
	if g.cfg.Auth.Open() || q == nil {
		return do()
	}
	switch req.Op {
	case routerpb.Op_OP_LEASE_KEEPALIVE:
		return g.renew(ctx, q, do)
	case routerpb.Op_OP_LEASE_LIST:
		if err := g.caller.AllLeases(ctx, g.cfg.Router); err != nil {
			return nil, g.unchecked(err)
		}
	case routerpb.Op_OP_LEASE_KEYS:
		reply, err := do()
		if err != nil {
			return nil, err
		}
		answer, _ := reply.Message.(*routerpb.LeaseStatus)
		for _, key := range answer.GetKeys() {
			if err := g.caller.Read(key, nil); err != nil {
				return nil, forClient(err)
			}
		}
		return reply, nil
	}
	return do()
}

// renew keeps those leases alive that the user may. The others are told apart from those that do not live, and do not
// keep these from living on: neither those that the user may not renew, nor those of which nobody can tell now.
func (g *gate) renew(ctx context.Context, q *routerpb.LeaseQuery, do func() (*router.Reply, error)) (*router.Reply, error) {
	asked := q.Leases
	if len(asked) == 0 {
		asked = []int64{q.Lease}
	}
	why, err := g.caller.Renewable(ctx, g.cfg.Router, asked)
	if err != nil {
		return nil, forClient(err)
	}
	var may []int64
	ttls := make([]int64, len(asked))
	for i, lease := range asked {
		switch err := why[lease]; {
		case err == nil:
			may = append(may, lease)
		case status.Code(err) == codes.PermissionDenied:
			ttls[i] = router.LeaseForbidden
		default:
			ttls[i] = router.LeaseUnknown
		}
	}
	if len(may) == len(asked) {
		return do()
	}
	reply := &router.Reply{}
	if len(may) > 0 {
		q.Lease, q.Leases = 0, may
		if reply, err = do(); err != nil {
			return nil, err
		}
		answer, _ := reply.Message.(*routerpb.LeaseStatus)
		left := answer.GetTtls()
		for i, lease := range asked {
			if why[lease] == nil && len(left) > 0 {
				ttls[i], left = left[0], left[1:]
			}
		}
	}
	reply.Message = &routerpb.LeaseStatus{Ttls: ttls}
	return reply, nil
}

// unchecked is the error of a check for which a lease had to be asked for. If there was no answer, nothing was done.
func (g *gate) unchecked(err error) error {
	var coded interface{ GRPCStatus() *status.Status }
	if errors.As(err, &coded) && status.Code(err) != codes.Unavailable {
		return err
	}
	return fmt.Errorf("%w: which keys has the lease: %v", shard.ErrUnavailable, err)
}

// permitted publishes what the caller may read, as long as the caller may (V8).
type permitted struct {
	*Server
	peer.Publisher
	caller *auth.Caller
}

// Subscribe implements peer.Publisher.
func (p *permitted) Subscribe(sub router.Subscription, ready func()) (router.Feed, error) {
	if err := p.may(sub.Span); err != nil {
		return nil, err
	}
	feed, err := p.Publisher.Subscribe(sub, ready)
	if err != nil {
		return nil, err
	}
	return &permittedFeed{Feed: feed, may: func() error { return p.may(sub.Span) }, stop: p.cfg.Auth.Watch(ready)}, nil
}

func (p *permitted) may(span shard.Span) error {
	if p.cfg.Auth.Open() {
		return nil
	}
	return forClient(p.caller.ReadSpan(span))
}

type permittedFeed struct {
	router.Feed
	may  func() error
	stop func()
}

// Poll implements router.Feed.
func (f *permittedFeed) Poll(max int) (shard.Changes, error) {
	if err := f.may(); err != nil {
		return shard.Changes{}, err
	}
	return f.Feed.Poll(max)
}

// Close implements router.Feed.
func (f *permittedFeed) Close() {
	f.stop()
	f.Feed.Close()
}
