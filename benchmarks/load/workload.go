package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Workload is one kind of work.
type Workload interface {
	// Name is what flags and tables call it; About is one line for people.
	Name() string
	About() string
	// Clients is how many clients to run when want are asked for.
	Clients(want int) int
	// Prepare writes what the operations expect to find.
	Prepare(ctx context.Context, e *Env) error
	// Client returns what client i does again and again.
	Client(e *Env, i int) Operation
}

// Operation is one request and its answer.
type Operation func(context.Context) error

// Workloads is every workload there is, in the order they are shown.
func Workloads() []Workload {
	return []Workload{
		put{name: "put", about: "put over a keyspace"},
		get{name: "get", about: "linearizable get of a key that exists"},
		get{name: "get-serializable", about: "serializable get of a key that exists", options: []clientv3.OpOption{clientv3.WithSerializable()}},
		mixed{},
		txn{},
		list{keys: 100, groups: 64},
		list{keys: 1000, groups: 16},
		put{name: "put1", about: "put by one client: latency", one: true},
	}
}

// Named returns the workloads with the given names; "range" means every list.
func Named(names []string) ([]Workload, error) {
	var out []Workload
	for _, name := range names {
		found := false
		for _, w := range Workloads() {
			_, isList := w.(list)
			if w.Name() == name || name == "range" && isList {
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

// Env is what all workloads of one run share.
type Env struct {
	// Conns are the connections; client i uses Conn(i).
	Conns []*clientv3.Client
	// Keys is the size of the keyspace that put writes and get reads.
	Keys int
	// ValueBytes is the size of every value.
	ValueBytes int
	Seed       uint64

	noise []byte
	// filled: the shared keyspace was written, and no workload deletes from it.
	filled bool
}

// Conn is the connection of client i.
func (e *Env) Conn(i int) *clientv3.Client { return e.Conns[i%len(e.Conns)] }

// random is client i's own source (L4).
func (e *Env) random(i int) *rand.Rand { return rand.New(rand.NewPCG(e.Seed, uint64(i))) }

// noiseBytes is enough that values do not repeat soon.
const noiseBytes = 1 << 20

// value is ValueBytes of noise: nothing that compresses, or a store that
// compresses would be measured with less to write.
func (e *Env) value(r *rand.Rand) string {
	at := r.IntN(len(e.noise) - e.ValueBytes)
	return string(e.noise[at : at+e.ValueBytes])
}

// NewEnv prepares an environment over open connections.
func NewEnv(conns []*clientv3.Client, keys, valueBytes int, seed uint64) (*Env, error) {
	if keys < 1 || valueBytes < 1 || valueBytes >= noiseBytes {
		return nil, fmt.Errorf("need at least 1 key and a value of 1 to %d bytes, have %d and %d", noiseBytes-1, keys, valueBytes)
	}
	e := &Env{Conns: conns, Keys: keys, ValueBytes: valueBytes, Seed: seed, noise: make([]byte, noiseBytes)}
	r := rand.New(rand.NewPCG(seed, 1<<63))
	for i := range e.noise {
		e.noise[i] = byte(r.Uint32())
	}
	return e, nil
}
