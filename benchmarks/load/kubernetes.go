package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// kubernetes is what API servers ask of a store: every client is a node of a cluster that
// renews its lease object, updates its pods and reports events, while watchers see it all.
// Writes are as the API server makes them: put if mod_revision is unchanged, else get.
// Each resource has a prefix of its own, placed like the prefix of a hash, as if the
// keyspace had been split by resource.
type kubernetes struct{}

const (
	nodeLeases = iota // the prefix of each resource, under kubernetesKeys
	pods
	events
	resources // how many
)

const (
	// watchersEach is how many watch each resource whole: API servers and controllers.
	watchersEach = 4
	podsPerNode  = 10
	// eventTTL in seconds: an event goes with its etcd lease.
	eventTTL = 3600
	// eventsPerLease is how many events share one etcd lease, as in the API server.
	eventsPerLease = 1000
)

func (kubernetes) Name() string { return "kubernetes" }
func (kubernetes) About() string {
	return "60 % node lease, 25 % pod status, both compare-and-put; 10 % event with a lease, 5 % get; 12 watchers"
}
func (kubernetes) Clients(want int) int { return want }

// Measure implements Workload.
func (kubernetes) Measure(ctx context.Context, e *Env, p Plan) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watching sync.WaitGroup
	var disorder atomic.Int64
	for resource := range resources {
		prefix := kubernetesKeys.prefix(resource) + "/"
		watches, err := e.openWatches(ctx, watchersEach, prefix, []clientv3.OpOption{clientv3.WithPrefix()}, func(int, time.Time) {})
		if err != nil {
			return Result{}, fmt.Errorf("watch resource %d: %w", resource, err)
		}
		for _, ch := range watches {
			watching.Go(func() { disorder.Add(countDisorder(ch)) })
		}
	}
	got, err := runClients(ctx, p, p.Clients, operationTimeout, func(i int) Operation { return newKubelet(e, i).operation })
	cancel()
	watching.Wait()
	if n := disorder.Load(); n > 0 && err == nil {
		got.Errors[errDisorder.Error()] += n
	}
	return got, err
}

// countDisorder takes all events of a watch and counts those out of order (L4).
func countDisorder(watch clientv3.WatchChan) (n int64) {
	var last int64
	for resp := range watch {
		for _, ev := range resp.Events {
			if ev.Kv.ModRevision < last {
				n++
			}
			last = ev.Kv.ModRevision
		}
	}
	return n
}

// kubelet is one client.
type kubelet struct {
	e      *Env
	conn   *clientv3.Client
	number int
	r      *rand.Rand

	known map[string]int64 // mod revisions; 0 of what was not written yet

	lease  clientv3.LeaseID
	events int // written
}

func newKubelet(e *Env, i int) *kubelet {
	return &kubelet{e: e, conn: e.Conn(i), number: i, r: e.random(i), known: make(map[string]int64)}
}

func (k *kubelet) operation(ctx context.Context) error {
	switch share := k.r.IntN(100); {
	case share < 60:
		return k.update(ctx, k.key(nodeLeases, 0))
	case share < 85:
		return k.update(ctx, k.key(pods, k.r.IntN(podsPerNode)))
	case share < 95:
		return k.report(ctx)
	default:
		_, err := k.conn.Get(ctx, k.key(pods, k.r.IntN(podsPerNode)))
		return err
	}
}

// key is the n-th object of a resource that is this node's.
func (k *kubelet) key(resource, n int) string {
	return fmt.Sprintf("%s/%06d/%06d", kubernetesKeys.prefix(resource), k.number, n)
}

// update puts an object if it is as it was last seen, and else learns how it is.
func (k *kubelet) update(ctx context.Context, key string) error {
	resp, err := k.conn.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", k.known[key])).
		Then(clientv3.OpPut(key, k.e.value(k.r))).
		Else(clientv3.OpGet(key)).
		Commit()
	if err != nil {
		return err
	}
	if resp.Succeeded {
		k.known[key] = resp.Header.Revision
		return nil
	}
	kvs := resp.Responses[0].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return errors.New("kubernetes: the compare with nothing failed, and nothing is there")
	}
	k.known[key] = kvs[0].ModRevision
	return nil
}

// report writes an event that goes with its lease.
func (k *kubelet) report(ctx context.Context) error {
	if k.events%eventsPerLease == 0 || k.lease == clientv3.NoLease {
		resp, err := k.conn.Grant(ctx, eventTTL)
		if err != nil {
			return err
		}
		k.lease = resp.ID
	}
	k.events++
	_, err := k.conn.Put(ctx, k.key(events, k.events), k.e.value(k.r), clientv3.WithLease(k.lease))
	return err
}
