package robustness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/history"
)

// connections are the clients of a run. Half of them talk to one node each, and see what that node believes. The
// others use all nodes in turn, as applications do. A native client uses all nodes by itself, whichever it begins
// with.
type connections []*clientv3.Client

func connect(endpoints []string, n int, native bool) (connections, error) {
	var out connections
	for i := range n {
		to := endpoints
		if i%2 == 0 {
			to = endpoints[i/2%len(endpoints):][:1]
		}
		dial := dial
		if native && i%3 == 0 {
			dial = dialNative
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
func drive(ctx context.Context, rec *history.Recorder, conns connections, names []string, seed int64, load Workload) {
	var wg sync.WaitGroup
	told := &toldRevisions{}
	work := session{rec: rec, told: told, timeout: load.Timeout}
	pace := time.Duration(float64(time.Second) * float64(load.Clients) / load.Rate)
	for i := range load.Clients {
		wg.Go(func() {
			t := &trader{session: work.as(i, conns), gen: newGenerator(i, seed, load)}
			// Clients begin spread over one interval, not in step.
			t.run(ctx, pace*time.Duration(i)/time.Duration(load.Clients), pace)
		})
	}
	client := load.Clients
	for range load.Watchers {
		w := &watcher{session: work.as(client, conns), cli: conns.of(client), nodes: conns.single(len(names)), names: names, rng: chance(seed, client), told: told, keys: load.Keys}
		wg.Go(func() { w.run(ctx) })
		client++
	}
	for range load.Lessees {
		s := work.as(client, conns)
		l := &lessee{
			session: s, ttl: load.LeaseTTL, rng: chance(seed, client), keys: load.Keys.Leased,
			// On another connection: requests that a lessee makes at the same time meet only at the shards.
			leases: leaseCaller{client: client, conn: conns.of(client + 1).ActiveConnection(), rec: rec, timeout: load.Timeout},
		}
		wg.Go(func() { l.run(ctx) })
		client++
	}
	wg.Wait()
}

// chance returns one client's own random numbers.
func chance(seed int64, client int) *rand.Rand {
	return rand.New(rand.NewPCG(uint64(seed), uint64(client)))
}

// of returns the connection that a client uses.
func (c connections) of(client int) *clientv3.Client { return c[client%len(c)] }

// single returns the connections that lead to one node each.
func (c connections) single(nodes int) connections {
	var out connections
	for node := range nodes {
		out = append(out, c[2*node])
	}
	return out
}

// session is one client at work: it makes requests and records them.
type session struct {
	client  int
	kv      clientv3.KV
	rec     *history.Recorder
	told    *toldRevisions
	timeout time.Duration
}

// as returns the session of the client with this number.
func (s session) as(client int, conns connections) session {
	s.client, s.kv = client, conns.of(client)
	return s
}

// ask makes one request. It waits for the request's own timeout even if the traffic ends meanwhile, because giving up
// would add an unknown outcome without need.
func (s *session) ask(ctx context.Context, req history.Request) (history.Response, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
	defer cancel()
	inv := s.rec.Invoke(s.client, req)
	resp, err := perform(ctx, s.kv, req)
	end(inv, resp, err)
	if err == nil {
		s.told.note(resp.Revision)
	}
	return resp, err
}

// trader reads and writes, one request at a time.
type trader struct {
	session
	gen *generator
}

// run makes a request every pace, or less often if the store is slower. It does not catch up.
func (t *trader) run(ctx context.Context, delay, pace time.Duration) {
	for wait(ctx, delay) == nil {
		began := time.Now()
		req := t.gen.next()
		if resp, err := t.ask(ctx, req); err == nil {
			t.gen.observe(req, resp)
		}
		delay = max(0, pace-time.Since(began))
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
