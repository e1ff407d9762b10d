package etcdapi

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/router/auth"
)

const (
	// renewalsMax bounds the leases that one stream has in flight; further requests wait in the
	// stream.
	renewalsMax = 256
	// renewalPatience is how long requests wait for earlier ones, so that they can be renewed
	// together afterwards: most renewals take less. A home without a leader delays others no longer
	// than this.
	renewalPatience = 5 * time.Millisecond
)

// LeaseKeepAlive renews the requested leases and answers in request order. Requests that arrive
// while leases are being renewed are renewed together afterwards, which is cheaper, and their
// responses are sent together. But leases must not expire because another shard has no leader, so
// this wait is limited. As in etcd, the first renewal that fails for another reason than a missing
// lease ends the stream; those that have been renewed are answered before, as the client would take them for expired.
func (s *leaseServer) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	k := &keepAlives{server: s, caller: s.cfg.Auth.Of(ctx), ctx: ctx, out: senderOf(stream), patience: time.NewTimer(renewalPatience)}
	defer k.work.Wait()
	defer cancel()
	defer k.patience.Stop()
	requests, ended := receiveKeepAlives(ctx, stream)
	for requests != nil || len(k.gathered)+len(k.under) > 0 {
		next := requests
		if k.leases >= renewalsMax {
			next = nil
		}
		select {
		case id, ok := <-next:
			if !ok { // the client has said all, and waits for the rest
				requests = nil
				continue
			}
			k.gather(id, next)
		case r := <-k.first():
			if err := k.answer(r, stream); err != nil {
				return err
			}
		case <-k.patience.C:
			k.late = true
		case err := <-ended:
			return err
		}
		if len(k.gathered) > 0 && (len(k.under) == 0 || k.late) {
			k.begin()
		}
	}
	return nil
}

// keepAlives is the state of a stream.
type keepAlives struct {
	server *leaseServer
	caller *auth.Caller
	ctx    context.Context
	out    sender
	work   sync.WaitGroup // of renewals

	gathered []int64         // leases to be renewed next
	under    []chan renewals // under way, in the order of the requests
	leases   int             // in both

	patience *time.Timer // with those that were begun last
	late     bool        // it has ended
}

// renewals are leases that were asked for together.
type renewals struct {
	asked        int     // how many
	leases, ttls []int64 // of those that were renewed
	head         *pb.ResponseHeader
	err          error // ends the stream, once these are answered
}

// gather collects a lease and those that have arrived with it.
func (k *keepAlives) gather(id int64, more <-chan int64) {
	for {
		k.gathered = append(k.gathered, id)
		if k.leases++; k.leases == renewalsMax {
			return
		}
		var ok bool
		select {
		case id, ok = <-more:
		default:
		}
		if !ok {
			return
		}
	}
}

// begin starts the renewal of what was gathered.
func (k *keepAlives) begin() {
	leases, done := k.gathered, make(chan renewals, 1)
	k.gathered, k.under = nil, append(k.under, done)
	k.late = false
	k.patience.Reset(renewalPatience)
	k.work.Go(func() {
		r := renewals{asked: len(leases)}
		permitted, refused := k.permit(leases)
		if len(permitted) > 0 {
			if r.ttls, r.head, r.err = k.server.leases.KeepAlive(k.ctx, permitted); r.err == nil {
				r.leases = permitted
			}
		}
		if refused != nil {
			r.err = refused
		}
		done <- r
	})
}

// permit returns the leases of which the caller may write all keys, as whoever keeps a lease alive keeps its keys, and
// why it may not for the first of the others, or that this is not known now.
func (k *keepAlives) permit(leases []int64) (permitted []int64, refused error) {
	if k.server.cfg.Auth.Open() {
		return leases, nil
	}
	why, err := k.caller.Renewable(k.ctx, k.server.leases, leases)
	if err != nil {
		return nil, err
	}
	for _, lease := range leases {
		switch err := why[lease]; {
		case err == nil:
			permitted = append(permitted, lease)
		case refused == nil:
			refused = err
		}
	}
	return permitted, refused
}

// first receives the outcome of the oldest renewals in flight.
func (k *keepAlives) first() <-chan renewals {
	if len(k.under) == 0 {
		return nil
	}
	return k.under[0]
}

// answer sends the responses for the oldest renewals in flight. If these end the stream, what else has been renewed is
// answered too, in no order.
func (k *keepAlives) answer(r renewals, stream pb.Lease_LeaseKeepAliveServer) error {
	k.under, k.leases = k.under[1:], k.leases-r.asked
	if err := k.send(r); err != nil || r.err == nil {
		return err
	}
	for _, done := range k.under {
		select {
		case later := <-done:
			if err := k.send(later); err != nil {
				return err
			}
		default:
		}
	}
	return readError(stream.Context(), r.err)
}

// send sends the responses for leases that were renewed.
func (k *keepAlives) send(r renewals) error {
	if len(r.leases) == 0 {
		return nil
	}
	k.server.fill(r.head)
	defer k.out.Flush()
	for i, id := range r.leases {
		if r.ttls[i] > 0 {
			k.server.leased.renewed.Inc()
		}
		if err := k.out.SendLater(&pb.LeaseKeepAliveResponse{Header: r.head, ID: id, TTL: r.ttls[i]}); err != nil {
			return err
		}
	}
	return nil
}

// receiveKeepAlives passes on the leases named on the stream, until the client closes it, and the
// error if it ends otherwise. It ends with ctx: a stream that its handler has left is not read any
// more.
func receiveKeepAlives(ctx context.Context, stream pb.Lease_LeaseKeepAliveServer) (<-chan int64, <-chan error) {
	requests, ended := make(chan int64, renewalsMax), make(chan error, 1)
	go func() {
		for {
			req, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				close(requests)
				return
			}
			if err != nil {
				ended <- err
				return
			}
			select {
			case requests <- req.ID:
			case <-ctx.Done():
				return
			}
		}
	}()
	return requests, ended
}
