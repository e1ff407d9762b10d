package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// preparersPerConn is how many writes a connection has in flight while a keyspace is filled; it
// only has to keep the servers busy.
const preparersPerConn = 4

// fill writes every key of the shared keyspace, once.
func (e *Env) fill(ctx context.Context) error {
	if e.filled {
		return nil
	}
	err := e.write(ctx, e.Keys, sharedKeys.key)
	e.filled = err == nil
	return err
}

// write puts n keys, plainly: a transaction over many of them is not something
// every system can do.
func (e *Env) write(ctx context.Context, n int, key func(i int) string) error {
	return e.each(ctx, n, func(ctx context.Context, conn *clientv3.Client, i int) error {
		if _, err := conn.Put(ctx, key(i), e.value(e.random(i))); err != nil {
			return fmt.Errorf("write key %d of %d: %w", i, n, err)
		}
		return nil
	})
}

// each does something n times over all connections, a few at a time. It stops at the
// first failure.
func (e *Env) each(ctx context.Context, n int, do func(ctx context.Context, conn *clientv3.Client, i int) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		next     atomic.Int64
		wg       sync.WaitGroup
		failures = make([]error, preparersPerConn*len(e.Conns))
	)
	for w := range failures {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if failures[w] = do(ctx, e.Conn(w), i); failures[w] != nil {
					cancel()
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(failures...)
}
