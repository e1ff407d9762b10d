package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// splitAt splits at the key and waits until that is done.
func splitAt(t *testing.T, through *testcluster.Node, key string) {
	t.Helper()
	beginSplit(t, through, key)
	waitSplit(t, through, key)
}

// beginSplit waits until a split at the key can begin: a shard that was just split off
// may not be led yet as far as all know.
func beginSplit(t *testing.T, through *testcluster.Node, key string) {
	t.Helper()
	testcluster.Eventually(t, "a split to begin", func(ctx context.Context) error {
		_, err := through.Inside().Split(ctx, []byte(key), "a test")
		return err
	})
}

func waitSplit(t *testing.T, through *testcluster.Node, key string) {
	t.Helper()
	testcluster.Eventually(t, "the split to end", func(context.Context) error {
		m := through.Inside().Map()
		if d := m.Lookup([]byte(key)); string(d.Span.Start) != key || len(m.Operators()) > 0 {
			return fmt.Errorf("%q is in %s, operators %v", key, d.Span, m.Operators())
		}
		return nil
	})
}

// auditor looks, again and again, whether some node has two replicas that both have a key.
type auditor struct {
	cancel context.CancelFunc
	work   sync.WaitGroup
}

func audit(t *testing.T, c *testcluster.Cluster) *auditor {
	ctx, cancel := context.WithCancel(t.Context())
	a := &auditor{cancel: cancel}
	for _, n := range c.Nodes() {
		a.work.Go(func() {
			for ctx.Err() == nil {
				if err := overlap(n); err != nil {
					t.Errorf("%s: %v", n.Name, err)
					return
				}
				select {
				case <-time.After(time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	t.Cleanup(a.stop)
	return a
}

func (a *auditor) stop() {
	a.cancel()
	a.work.Wait()
}

// overlap looks twice: between two looks at different shards one may have been split.
func overlap(n *testcluster.Node) error {
	first, second := descriptors(n), descriptors(n)
	if !slices.Equal(first, second) {
		return nil
	}
	for i, d := range first {
		for _, o := range first[i+1:] {
			if d.Span.Overlaps(o.Span) {
				return fmt.Errorf("shards %s and %s both have keys of %s", d.ID, o.ID, d.Span.Intersect(o.Span))
			}
		}
	}
	return nil
}

// descriptors are those that the node's replicas have applied, by shard.
func descriptors(n *testcluster.Node) (list []*shard.Descriptor) {
	inside := n.Inside()
	if inside == nil || inside.Host() == nil {
		return nil
	}
	inside.Host().Each(func(r *replica.Replica) {
		if d := r.View().Descriptor; d != nil {
			list = append(list, d)
		}
	})
	slices.SortFunc(list, func(a, b *shard.Descriptor) int { return bytes.Compare(a.Span.Start, b.Span.Start) })
	return list
}

// watcher takes all events of the keyspace and checks their order.
type watcher struct {
	cancel context.CancelFunc
	done   chan struct{}
	mu     sync.Mutex
	seen   map[string]int64 // every key put once: its revision
	err    error
}

func watchEverything(t *testing.T, client *clientv3.Client) *watcher {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{cancel: cancel, done: make(chan struct{}), seen: make(map[string]int64)}
	key, from := everything()
	created := make(chan struct{})
	go func() {
		defer close(w.done)
		events := client.Watch(ctx, key, from, clientv3.WithCreatedNotify())
		last := int64(0)
		for resp := range events {
			if resp.Created {
				close(created)
			}
			w.take(resp, &last)
		}
	}()
	t.Cleanup(w.stop)
	select {
	case <-created:
	case <-t.Context().Done():
	}
	return w
}

func (w *watcher) take(resp clientv3.WatchResponse, last *int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := resp.Err(); err != nil {
		w.err = errors.Join(w.err, err)
	}
	for _, e := range resp.Events {
		rev, key := e.Kv.ModRevision, string(e.Kv.Key)
		if rev < *last {
			w.err = errors.Join(w.err, fmt.Errorf("%q at %d came after %d", key, rev, *last))
		}
		if e.Kv.Version == 1 && w.seen[key] != 0 {
			w.err = errors.Join(w.err, fmt.Errorf("%q came twice", key))
		}
		w.seen[key], *last = rev, rev
	}
}

func (w *watcher) stop() {
	w.cancel()
	<-w.done
}

// requireSaw checks that the watch has told of every acknowledged put.
func (w *watcher) requireSaw(t *testing.T, writers *writers) {
	t.Helper()
	testcluster.Eventually(t, "the watch to tell of all puts", func(context.Context) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		for key, rev := range writers.mu.acked {
			if w.seen[key] != rev {
				return fmt.Errorf("%q was put at %d, the watch saw it at %d: %w", key, rev, w.seen[key], w.err)
			}
		}
		return nil
	})
	w.stop()
	require.NoError(t, w.err)
}

// One shard becomes eight under writers and watchers on all nodes: no request fails, none
// is lost, and watches tell of each once and in order.
func TestSplitUnderLoad(t *testing.T) {
	t.Parallel()
	// Elections of a busy machine are not what this is about.
	c := testcluster.Start(t, testcluster.Options{Tick: 400 * time.Millisecond})
	audit(t, c)
	var watchers []*watcher
	var clients []*clientv3.Client
	for _, n := range c.Nodes() {
		clients = append(clients, c.Client(t, n))
		watchers = append(watchers, watchEverything(t, clients[len(clients)-1]))
	}
	w := startWriters(t, 6, clients...)
	for i, part := range []int{4, 2, 6, 1, 3, 5, 7} {
		before := w.count()
		splitAt(t, c.Node(1+i%3), spread(part, ""))
		testcluster.Until(t, "the writers to go on", func() bool { return w.count() > before+20 })
	}
	require.Len(t, c.Node(1).Inside().Map().Shards(), 8)
	w.requireKept(t, clients[0])
	require.Empty(t, w.mu.failed)
	for _, watcher := range watchers {
		watcher.requireSaw(t, w)
	}
	requireWeaned(t, c)
	requireSame(t, c)
}
