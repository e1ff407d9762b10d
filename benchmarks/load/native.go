package load

import (
	"context"
	"fmt"
	"slices"

	"github.com/flotilla-kv/flotilla/client"
)

// native is a workload of a system's own client, where it has a better one than etcd's: for
// Flotilla its native client, one for all goroutines as a program has, for others what
// etcd's client does. So the ratio is that of what users of either get.
type native struct {
	name, about string
	etcd        looped // the same work with etcd's client
	client      func(c *client.Client, e *Env, i int) Operation
}

func (w native) Name() string         { return w.name }
func (w native) About() string        { return w.about }
func (w native) Clients(want int) int { return want }

// Measure implements Workload.
func (w native) Measure(ctx context.Context, e *Env, p Plan) (Result, error) {
	if !e.Native {
		return closed{looped: w.etcd}.Measure(ctx, e, p)
	}
	if err := w.etcd.Prepare(ctx, e); err != nil {
		return Result{}, err
	}
	c, err := e.native(ctx)
	if err != nil {
		return Result{}, err
	}
	defer c.Close()
	return runClients(ctx, p, w.Clients(p.Clients), operationTimeout, func(i int) Operation { return w.client(c, e, i) })
}

// native connects Flotilla's own client, which has had an answer (L1).
func (e *Env) native(ctx context.Context) (*client.Client, error) {
	var endpoints []string
	for _, conn := range e.Conns {
		endpoints = append(endpoints, conn.Endpoints()...)
	}
	slices.Sort(endpoints)
	c, err := client.New(client.Config{Endpoints: slices.Compact(endpoints)})
	if err != nil {
		return nil, err
	}
	if _, err := c.Get(ctx, "connected?"); err != nil {
		c.Close()
		return nil, fmt.Errorf("first read: %w", err)
	}
	return c, nil
}

func nativePut(c *client.Client, e *Env, i int) Operation {
	r := e.random(i)
	return func(ctx context.Context) error {
		_, err := c.Put(ctx, sharedKeys.key(r.IntN(e.Keys)), e.bytes(r))
		return err
	}
}

func nativeGet(c *client.Client, e *Env, i int) Operation {
	r := e.random(i)
	return func(ctx context.Context) error {
		got, err := c.Get(ctx, sharedKeys.key(r.IntN(e.Keys)))
		if err != nil {
			return err
		}
		if got.KV() == nil {
			return fmt.Errorf("get: a key is not there that was written")
		}
		return nil
	}
}
