package load

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// get reads random keys of the shared keyspace.
type get struct {
	name, about string
	options     []clientv3.OpOption
}

func (w get) Name() string                              { return w.name }
func (w get) About() string                             { return w.about }
func (w get) Clients(want int) int                      { return want }
func (w get) Prepare(ctx context.Context, e *Env) error { return e.fill(ctx) }

func (w get) Client(e *Env, i int) Operation {
	conn, r := e.Conn(i), e.random(i)
	return func(ctx context.Context) error {
		key := sharedKeys.key(r.IntN(e.Keys))
		resp, err := conn.Get(ctx, key, w.options...)
		if err != nil {
			return err
		}
		if len(resp.Kvs) != 1 {
			return fmt.Errorf("get: %d keys where 1 was written", len(resp.Kvs))
		}
		return nil
	}
}

// mixed is four reads to one write, all in one latency.
type mixed struct{}

const mixedReadPercent = 80

func (mixed) Name() string                              { return "mixed" }
func (mixed) About() string                             { return "80 % linearizable get, 20 % put" }
func (mixed) Clients(want int) int                      { return want }
func (mixed) Prepare(ctx context.Context, e *Env) error { return e.fill(ctx) }

func (mixed) Client(e *Env, i int) Operation {
	read, write, r := get{}.Client(e, i), put{}.Client(e, i), e.random(-i-1)
	return func(ctx context.Context) error {
		if r.IntN(100) < mixedReadPercent {
			return read(ctx)
		}
		return write(ctx)
	}
}
