package node_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// load is writers, one through each node, that count up in a key of their own, and
// somebody who watches them.
type load struct {
	cancel  context.CancelFunc
	writers sync.WaitGroup
	keys    []string
	last    []int // acknowledged, by writer
	errs    []error
	watch   clientv3.WatchChan
}

func startLoad(t *testing.T, c *testcluster.Cluster) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel, last: make([]int, len(c.Nodes())), errs: make([]error, len(c.Nodes()))}
	created := c.Client(t).Watch(t.Context(), "load/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	require.True(t, (<-created).Created)
	l.watch = created
	for i, n := range c.Nodes() {
		key := fmt.Sprintf("load/%d", i)
		l.keys = append(l.keys, key)
		client := c.Client(t, n)
		l.writers.Go(func() {
			for ctx.Err() == nil {
				// Not ctx: whether the last put was acknowledged would be left open.
				if _, err := client.Put(t.Context(), key, fmt.Sprint(l.last[i]+1)); err != nil {
					l.errs[i] = err
					return
				}
				l.last[i]++
			}
		})
	}
	return l
}

// stop ends the writers. None of their puts may have failed.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.writers.Wait()
	require.NoError(t, errors.Join(l.errs...))
	// Every put was seen, once, in order.
	seen := make(map[string]int)
	patience := time.After(20 * time.Second)
	for i, key := range l.keys {
		require.Positive(t, l.last[i])
		for seen[key] < l.last[i] {
			select {
			case resp := <-l.watch:
				require.NoError(t, resp.Err())
				for _, e := range resp.Events {
					require.Equal(t, fmt.Sprint(seen[string(e.Kv.Key)]+1), string(e.Kv.Value), "of %s", e.Kv.Key)
					seen[string(e.Kv.Key)]++
				}
			case <-patience:
				t.Fatalf("the watch saw %v of %v", seen, l.last)
			}
		}
	}
}

// requireAll finds what was written last.
func (l *load) requireAll(t *testing.T, client *clientv3.Client) {
	t.Helper()
	for i, key := range l.keys {
		requireValue(t, client, key, fmt.Sprint(l.last[i]))
	}
}
