package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Workload is one kind of work.
type Workload interface {
	// Name is what flags and tables call it; About is one line for people.
	Name() string
	About() string
	// Clients is how many clients, or watchers, to run when want clients are asked for.
	Clients(want int) int
	// Measure writes what the work expects to find, does it and takes the time.
	Measure(ctx context.Context, e *Env, p Plan) (Result, error)
}

// looped is a workload of clients that do one operation after the other.
type looped interface {
	Name() string
	About() string
	Clients(want int) int
	// Prepare writes what the operations expect to find.
	Prepare(ctx context.Context, e *Env) error
	// Client returns what client i does again and again.
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

// Operation is one request and its answer.
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

// families are the names that mean several workloads, by the prefix of theirs.
func families() []string { return []string{"list", "watch", "lease", "ycsb", "native"} }

// Named returns the workloads with the given names, or of the given families.
func Named(names []string) ([]Workload, error) {
	var out []Workload
	for _, name := range names {
		found := false
		for _, w := range Workloads() {
			if w.Name() == name || slices.Contains(families(), name) && strings.HasPrefix(w.Name(), name+"-") {
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

// Sizes say how much there is to do.
type Sizes struct {
	// Keys is the size of the keyspace that put writes and get reads.
	Keys int
	// ValueBytes is the size of every value.
	ValueBytes int
	// WatchRate is how many puts a second watchers are sent, unless there are so many
	// watchers that it would be more than deliveriesMax.
	WatchRate int
	// IdleWatchers is how many watchers are opened to see what one costs.
	IdleWatchers int
	// CatchUp is how many events a watcher has to catch up with.
	CatchUp int
	// Leases is how many leases are kept alive.
	Leases int
}

// Env is what all workloads of one run share.
type Env struct {
	// Conns are the connections; client i uses Conn(i).
	Conns []*clientv3.Client
	Sizes
	Seed uint64
	// Native: the system serves Flotilla's native client.
	Native bool

	noise []byte
	// zipf picks out of the shared keyspace.
	zipf *Zipf
	// filled: the shared keyspace was written, and no workload deletes from it.
	filled bool
	// written is how many of its keys growth has.
	written int
}

// Conn is the connection of client i.
func (e *Env) Conn(i int) *clientv3.Client { return e.Conns[i%len(e.Conns)] }

// random is client i's own source (L5).
func (e *Env) random(i int) *rand.Rand { return rand.New(rand.NewPCG(e.Seed, uint64(i))) }

// noiseBytes is enough that values do not repeat soon.
const noiseBytes = 1 << 20

// value is ValueBytes of noise: nothing that compresses, or a store that
// compresses would be measured with less to write.
func (e *Env) value(r *rand.Rand) string { return string(e.bytes(r)) }

// bytes is such a value, not to be changed.
func (e *Env) bytes(r *rand.Rand) []byte {
	at := r.IntN(len(e.noise) - e.ValueBytes)
	return e.noise[at : at+e.ValueBytes]
}

// NewEnv prepares an environment over open connections.
func NewEnv(conns []*clientv3.Client, sizes Sizes, seed uint64) (*Env, error) {
	switch {
	case sizes.Keys < 1 || sizes.ValueBytes < 1 || sizes.ValueBytes >= noiseBytes:
		return nil, fmt.Errorf("need at least 1 key and a value of 1 to %d bytes, have %d and %d", noiseBytes-1, sizes.Keys, sizes.ValueBytes)
	case sizes.WatchRate < 1 || sizes.IdleWatchers < 1 || sizes.CatchUp < 1 || sizes.Leases < 1:
		return nil, errors.New("watch rate, idle watchers, events to catch up with and leases must be at least 1")
	}
	e := &Env{Conns: conns, Sizes: sizes, Seed: seed, noise: make([]byte, noiseBytes), zipf: NewZipf(sizes.Keys)}
	r := rand.New(rand.NewPCG(seed, 1<<63))
	for i := range e.noise {
		e.noise[i] = byte(r.Uint32())
	}
	return e, nil
}
