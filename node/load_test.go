package node_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// spread makes a key in the i-th of eight equal parts of the keyspace.
func spread(i int, name string) string { return string([]byte{byte(i % 8 * 32)}) + name }

// everything are the arguments of a read of the whole keyspace.
func everything() (string, clientv3.OpOption) { return "\x00", clientv3.WithFromKey() }

// steadyTick keeps leaders in office on a busy machine, where no request may fail.
const steadyTick = 500 * time.Millisecond

// writers put keys of their own, each once, until they are stopped.
type writers struct {
	timeout time.Duration // of a put
	cancel  context.CancelFunc
	work    sync.WaitGroup

	mu struct {
		sync.Mutex
		acked  map[string]int64 // revision of every acknowledged put
		failed map[string]error // puts of unknown outcome, or refused
	}
}

const (
	// writeTimeout is how long a writer waits before it calls a put lost and goes on.
	writeTimeout = time.Second
	// writePatience is how long where no put may fail: it may take as long as the machine does.
	writePatience = 20 * time.Second
)

// startWriters runs count writers over the clients in turn.
func startWriters(t *testing.T, count int, clients ...*clientv3.Client) *writers {
	return startWriting(t, writeTimeout, count, clients)
}

// startPatientWriters is startWriters where nothing happens by which a put may fail.
func startPatientWriters(t *testing.T, count int, clients ...*clientv3.Client) *writers {
	return startWriting(t, writePatience, count, clients)
}

func startWriting(t *testing.T, timeout time.Duration, count int, clients []*clientv3.Client) *writers {
	ctx, cancel := context.WithCancel(t.Context())
	w := &writers{timeout: timeout, cancel: cancel}
	w.mu.acked, w.mu.failed = make(map[string]int64), make(map[string]error)
	for i := range count {
		w.work.Go(func() { w.write(ctx, i, clients[i%len(clients)]) })
	}
	t.Cleanup(w.stop)
	return w
}

func (w *writers) write(ctx context.Context, id int, client *clientv3.Client) {
	for n := 0; ctx.Err() == nil; n++ {
		key := spread(n, fmt.Sprintf("w%d/%d", id, n))
		putting, cancel := context.WithTimeout(ctx, w.timeout)
		resp, err := client.Put(putting, key, key)
		cancel()
		w.mu.Lock()
		switch {
		case err == nil:
			w.mu.acked[key] = resp.Header.Revision
		case ctx.Err() == nil: // not just the end of the writers
			w.mu.failed[key] = err
		}
		w.mu.Unlock()
	}
}

func (w *writers) stop() {
	w.cancel()
	w.work.Wait()
}

// count is how many puts were acknowledged so far.
func (w *writers) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.mu.acked)
}

// requireKept stops the writers and checks that the store has every acknowledged put
// at the revision it was acknowledged with.
func (w *writers) requireKept(t *testing.T, client *clientv3.Client) {
	t.Helper()
	w.stop()
	key, from := everything()
	resp, err := client.Get(t.Context(), key, from)
	require.NoError(t, err)
	have := make(map[string]int64)
	for _, kv := range resp.Kvs {
		have[string(kv.Key)] = kv.ModRevision
		if string(kv.Key) == string(kv.Value) { // the writers'
			require.Equal(t, int64(1), kv.Version, "%q was written more than once", kv.Key)
		}
	}
	for key, rev := range w.mu.acked {
		require.Equal(t, rev, have[key], "acknowledged put of %q", key)
	}
}
