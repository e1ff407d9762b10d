package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// preparersPerConn is how many writes a connection has under way while a keyspace
// is filled; it only has to keep the servers busy.
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		next     atomic.Int64
		wg       sync.WaitGroup
		failures = make([]error, preparersPerConn*len(e.Conns))
	)
	for w := range failures {
		wg.Go(func() {
			r := e.random(w)
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if _, err := e.Conn(w).Put(ctx, key(i), e.value(r)); err != nil {
					failures[w] = fmt.Errorf("write key %d of %d: %w", i, n, err)
					cancel()
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(failures...)
}
