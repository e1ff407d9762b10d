package node_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// The flag package wants its variables before the tests run; nothing else changes it.
var listWatchFlag = flag.Duration("list-watch", time.Second, "how long TestListsAndWatchesAgree goes on")

// TestListsAndWatchesAgree keeps, on every node, a copy of eight shards by list and watch
// while all keys are overwritten and deleted, and compares it at exact revisions with
// later lists: nothing may be missing, too much, or out of its time.
func TestListsAndWatchesAgree(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
	ctx, stop := context.WithTimeout(t.Context(), *listWatchFlag)
	defer stop()
	var writes, compared atomic.Int64
	var work sync.WaitGroup
	var clients []*clientv3.Client
	for _, n := range []int{1, 2, 3} {
		clients = append(clients, c.Client(t, c.Node(n)))
	}
	for i := range 256 { // a write waits for disks and elections most of its time
		client := clients[i%3]
		work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key := spread(n, fmt.Sprint(i%64, "/", n%16/8))
				if n%16 == 15 {
					_, _ = client.Delete(t.Context(), key)
				} else {
					_, _ = client.Put(t.Context(), key, fmt.Sprint(n))
				}
				writes.Add(1)
			}
		})
	}
	for i := range 3 {
		client := c.Client(t, c.Node(i+1))
		work.Go(func() {
			for rounds := 0; rounds == 0 || ctx.Err() == nil; rounds++ {
				if err := listAndWatch(t.Context(), client, &compared); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	began := time.Now()
	work.Wait()
	t.Logf("%d lists agreed, at %.0f writes per second", compared.Load(), float64(writes.Load())/time.Since(began).Seconds())
}

// listAndWatch begins a copy from a list and compares it with five later ones.
func listAndWatch(ctx context.Context, client *clientv3.Client, compared *atomic.Int64) error {
	ctx, leave := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer leave()
	state, reached, err := list(ctx, client)
	if err != nil {
		return err
	}
	all, fromKey := everything()
	responses := client.Watch(ctx, all, fromKey, clientv3.WithRev(reached+1))
	var events []*clientv3.Event // received, not in state yet
	for range 5 {
		want, until, err := list(ctx, client)
		if err != nil {
			return err
		}
		if err := client.RequestProgress(ctx); err != nil { // it reaches what the list was told
			return fmt.Errorf("request progress: %w", err)
		}
		for reached < until {
			resp := <-responses
			if err := resp.Err(); err != nil {
				return fmt.Errorf("watch: %w", err)
			}
			events, reached = append(events, resp.Events...), resp.Header.Revision
		}
		for len(events) > 0 && events[0].Kv.ModRevision <= until {
			if err := change(state, events[0]); err != nil {
				return err
			}
			events = events[1:]
		}
		if !maps.Equal(want, state) {
			return fmt.Errorf("at %d a list has %d keys; a copy by an earlier list and its watch has %d, or others", until, len(want), len(state))
		}
		compared.Add(1)
	}
	return nil
}

func list(ctx context.Context, client *clientv3.Client) (map[string]int64, int64, error) {
	all, fromKey := everything()
	resp, err := client.Get(ctx, all, fromKey)
	if err != nil {
		return nil, 0, fmt.Errorf("list: %w", err)
	}
	state := make(map[string]int64)
	for _, kv := range resp.Kvs {
		state[string(kv.Key)] = kv.ModRevision
	}
	return state, resp.Header.Revision, nil
}

// change takes an event over into a copy, which it must follow.
func change(state map[string]int64, e *clientv3.Event) error {
	key := string(e.Kv.Key)
	if e.Kv.ModRevision <= state[key] {
		return fmt.Errorf("event of %q at %d, which is not after %d", key, e.Kv.ModRevision, state[key])
	}
	if e.Type == mvccpb.Event_DELETE {
		delete(state, key)
	} else {
		state[key] = e.Kv.ModRevision
	}
	return nil
}
