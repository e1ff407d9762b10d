package node_test

import (
	"sort"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// etcd's recipes beyond locks and elections, with their keys in two shards: the clients of
// all nodes take part.

func TestQueues(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "queue/m"})
	clients := []*clientv3.Client{c.Client(t, c.Node(1)), c.Client(t, c.Node(2)), c.Client(t, c.Node(3))}
	const items = 30
	type queue struct {
		enqueue func(item string) error
		dequeue func() (string, error)
	}
	for name, at := range map[string]func(client *clientv3.Client) queue{
		"first in, first out": func(client *clientv3.Client) queue {
			q := recipe.NewQueue(client, "queue/q")
			return queue{q.Enqueue, q.Dequeue}
		},
		"by priority": func(client *clientv3.Client) queue {
			q := recipe.NewPriorityQueue(client, "queue/a")
			return queue{func(item string) error { return q.Enqueue(item, uint16(item[0])) }, q.Dequeue}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range items {
				require.NoError(t, at(clients[i%3]).enqueue(string(rune('a'+(i*7)%26))))
			}
			var mu sync.Mutex
			var got []string
			var work sync.WaitGroup
			for _, client := range clients {
				work.Go(func() {
					q := at(client)
					for range items / 3 {
						item, err := q.dequeue()
						if err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						got = append(got, item)
						mu.Unlock()
					}
				})
			}
			work.Wait()
			var want []string
			for i := range items {
				want = append(want, string(rune('a'+(i*7)%26)))
			}
			sort.Strings(want)
			sort.Strings(got)
			require.Equal(t, want, got, "each item once")
		})
	}
}

func TestBarriers(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "queue/m"})
	b := recipe.NewBarrier(c.Client(t, c.Node(1)), "queue/b")
	require.NoError(t, b.Hold())
	var work sync.WaitGroup
	passed := make(chan struct{}, 2)
	for i := range 2 {
		work.Go(func() {
			if err := recipe.NewBarrier(c.Client(t, c.Node(i+2)), "queue/b").Wait(); err != nil {
				t.Error(err)
			}
			passed <- struct{}{}
		})
	}
	require.Empty(t, passed)
	require.NoError(t, b.Release())
	work.Wait()

	for i := range 3 {
		s := session(t, c.Client(t, c.Node(i+1)))
		work.Go(func() {
			d := recipe.NewDoubleBarrier(s, "queue/z", 3)
			if err := d.Enter(); err != nil {
				t.Error(err)
			}
			if err := d.Leave(); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
}

func TestReadersAndWriters(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "queue/m"})
	var mu sync.Mutex
	readers, writers := 0, 0
	var work sync.WaitGroup
	for i := range 6 {
		s := session(t, c.Client(t, c.Node(i%3+1)))
		work.Go(func() {
			m := recipe.NewRWMutex(s, "queue/rw")
			lock, unlock, mine := m.RLock, m.RUnlock, &readers
			if i%2 == 0 {
				lock, unlock, mine = m.Lock, m.Unlock, &writers
			}
			for range 3 {
				if err := lock(); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				*mine++
				if writers > 1 || writers == 1 && readers > 0 {
					t.Errorf("%d writers and %d readers hold the lock", writers, readers)
				}
				mu.Unlock()
				mu.Lock()
				*mine--
				mu.Unlock()
				if err := unlock(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
}
