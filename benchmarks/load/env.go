package load

import (
	"errors"
	"fmt"
	"math/rand/v2"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Sizes are the sizes of the workloads.
type Sizes struct {
	// Keys is the size of the keyspace that put writes and get reads.
	Keys int
	// ValueBytes is the size of every value.
	ValueBytes int
	// WatchRate is how many puts per second watchers receive, unless with so many watchers it would
	// exceed deliveriesMax.
	WatchRate int
	// IdleWatchers is how many watchers are opened to measure the cost of one.
	IdleWatchers int
	// CatchUp is how many events a watcher has to catch up with.
	CatchUp int
	// Leases is how many leases are kept alive.
	Leases int
}

// Env is shared by all workloads of one run.
type Env struct {
	// Conns are the connections; client i uses Conn(i).
	Conns []*clientv3.Client
	Sizes
	Seed uint64
	// Native: the system serves Flotilla's native client.
	Native bool

	noise []byte
	// zipf picks out of the shared keyspace.
	zipf *zipf
	// filled: the shared keyspace was written, and no workload deletes from it.
	filled bool
	// written is how many of its keys growth has.
	written int
	// listed are the prefixes that a list was written to last.
	listed keyspace
}

// Conn is the connection of client i.
func (e *Env) Conn(i int) *clientv3.Client { return e.Conns[i%len(e.Conns)] }

// random is client i's own source (L5).
func (e *Env) random(i int) *rand.Rand { return rand.New(rand.NewPCG(e.Seed, uint64(i))) }

// noiseBytes is large enough that values do not repeat soon.
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
	e := &Env{Conns: conns, Sizes: sizes, Seed: seed, noise: make([]byte, noiseBytes), zipf: newZipf(sizes.Keys)}
	r := rand.New(rand.NewPCG(seed, 1<<63))
	for i := range e.noise {
		e.noise[i] = byte(r.Uint32())
	}
	return e, nil
}
