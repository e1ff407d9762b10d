package load

import (
	"context"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Workload is one kind of work.
type Workload interface {
	// Name is used in flags and tables; About is one line for people.
	Name() string
	About() string
	// Clients is how many clients, or watchers, to run when want clients are requested.
	Clients(want int) int
	// Measure writes the data that the work needs, runs it and measures it.
	Measure(ctx context.Context, e *Env, p Plan) (Result, error)
}

// looped is a workload of clients that do one operation after the other.
type looped interface {
	Name() string
	About() string
	Clients(want int) int
	// Prepare writes the data that the operations need.
	Prepare(ctx context.Context, e *Env) error
	// Client returns the operation that client i repeats.
	Client(e *Env, i int) Operation
}

// closed makes a workload of one that is looped: a closed loop, unless the plan has a rate.
type closed struct {
	looped
	// holds: the servers keep something for each operation.
	holds bool
}

// Measure implements Workload.
func (w closed) Measure(ctx context.Context, e *Env, p Plan) (Result, error) {
	if err := w.Prepare(ctx, e); err != nil {
		return Result{}, err
	}
	got, err := runClients(ctx, p, w.Clients(p.Clients), operationTimeout, func(i int) Operation { return w.Client(e, i) })
	if w.holds {
		got.Held = got.Operations
	}
	return got, err
}

// Operation is one request and its response.
type Operation func(context.Context) error

// Workloads is every workload there is, in the order they are shown.
func Workloads() []Workload {
	out := []Workload{
		closed{looped: put{name: "put", about: "put over a keyspace"}},
		closed{looped: get{name: "get", about: "linearizable get of a key that exists"}},
		closed{looped: get{name: "get-serializable", about: "serializable get of a key that exists", options: []clientv3.OpOption{clientv3.WithSerializable()}}},
		closed{looped: mixed{}},
		closed{looped: txn{}},
		closed{looped: list{name: "list-100", keys: 100, groups: 64, clients: listClientsMax}},
		closed{looped: list{name: "list-1000", keys: 1000, groups: 16, clients: listClientsMax}},
		closed{looped: list{name: "list-100k", keys: 100_000, groups: 1, clients: 1}},
		closed{looped: list{name: "list-100k-pages", keys: 100_000, groups: 1, clients: 1, page: 10_000}},
		closed{looped: list{name: "list-100k-stream", keys: 100_000, groups: 1, clients: 1, stream: true}},
		native{name: "native-put", about: "put by the system's own client", etcd: put{}, client: nativePut},
		native{name: "native-get", about: "linearizable get by the system's own client", etcd: get{}, client: nativeGet},
		closed{looped: put{name: "put1", about: "put by one client: latency", one: true}},
		watchIdle{},
	}
	for _, n := range []int{1, 100, 1000} {
		out = append(out, watch{name: fmt.Sprintf("watch-%d", n), watchers: n})
	}
	for _, n := range []int{1, 100, 1000} {
		out = append(out, watch{name: fmt.Sprintf("watch-max-%d", n), watchers: n, flatOut: true})
	}
	for _, mix := range ycsbMixes() {
		out = append(out, closed{looped: ycsb{mix}})
	}
	return append(out,
		kubernetes{},
		watch{name: "watch-all-100", watchers: 100, everything: true},
		watch{name: "watch-stuck", watchers: 100, stuck: 10},
		watchCatchUp{},
		closed{looped: leaseGrant{}, holds: true},
		leaseKeepAlive{},
	)
}

// Families are names that stand for several workloads, by their prefix.
func Families() []string { return []string{"list", "watch", "lease", "ycsb", "native"} }

// Named returns the workloads with the given names, or of the given families.
func Named(names []string) ([]Workload, error) {
	var out []Workload
	for _, name := range names {
		found := false
		for _, w := range Workloads() {
			if w.Name() == name || slices.Contains(Families(), name) && strings.HasPrefix(w.Name(), name+"-") {
				out, found = append(out, w), true
			}
		}
		if !found {
			var known []string
			for _, w := range Workloads() {
				known = append(known, w.Name())
			}
			return nil, fmt.Errorf("unknown workload %q: know %s", name, strings.Join(known, ", "))
		}
	}
	return out, nil
}
