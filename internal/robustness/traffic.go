package robustness

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/history"
)

// connections are the clients of a run. Half of them talk to one node each, which sees
// what that node believes; the others go to all nodes in turn, as applications do.
type connections []*clientv3.Client

func connect(endpoints []string, n int) (connections, error) {
	var out connections
	for i := range n {
		to := endpoints
		if i%2 == 0 {
			to = endpoints[i/2%len(endpoints):][:1]
		}
		cli, err := dial(to)
		if err != nil {
			return nil, errors.Join(err, out.close())
		}
		out = append(out, cli)
	}
	return out, nil
}

func (c connections) close() error {
	var errs []error
	for _, cli := range c {
		// Close reports that the client's own context has ended, which Close has done.
		if err := cli.Close(); err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, fmt.Errorf("close client: %w", err))
		}
	}
	return errors.Join(errs...)
}

// drive lets all clients work until the context ends, and waits for their last answers.
func drive(ctx context.Context, rec *history.Recorder, conns connections, seed int64, load Workload) {
	var wg sync.WaitGroup
	pace := time.Duration(float64(time.Second) * float64(len(conns)) / load.Rate)
	for i, cli := range conns {
		wg.Go(func() {
			s := &session{client: i, kv: cli, rec: rec, gen: newGenerator(i, seed, load), timeout: load.Timeout}
			// Clients begin spread over one interval, not in step.
			s.run(ctx, pace*time.Duration(i)/time.Duration(len(conns)), pace)
		})
	}
	wg.Wait()
}

// session is one client at work: one request at a time.
type session struct {
	client  int
	kv      clientv3.KV
	rec     *history.Recorder
	gen     *generator
	timeout time.Duration
}

// run asks every pace, or later when the store is slower. It does not catch up.
func (s *session) run(ctx context.Context, delay, pace time.Duration) {
	for wait(ctx, delay) == nil {
		began := time.Now()
		s.one(ctx)
		delay = max(0, pace-time.Since(began))
	}
}

// one makes one request. It runs to its own timeout even when the traffic ends
// meanwhile: an outcome given up needlessly is one more unknown.
func (s *session) one(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
	defer cancel()
	req := s.gen.next()
	inv := s.rec.Invoke(s.client, req)
	resp, err := perform(ctx, s.kv, req)
	end(inv, resp, err)
	if err == nil {
		s.gen.observe(req, resp)
	}
}

func end(inv *history.Invocation, resp history.Response, err error) {
	switch {
	case err == nil:
		inv.OK(resp)
	case certain(err):
		inv.Refused(err)
	default:
		inv.Unknown(err)
	}
}
