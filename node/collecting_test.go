package node_test

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

var (
	versionsFlag      = flag.Int("versions", 20_000, "superseded versions that TestPutsWhileCollecting has removed")
	versionsKeysFlag  = flag.Int("versions-keys", 2_000, "keys that they are of")
	versionsPartsFlag = flag.Int("versions-parts", 2, "compactions that TestPutsWhileCollecting has them removed by")
)

// How long puts take while a compaction's garbage goes, and while none does. It asserts
// that all of it goes and no put fails; how long they took is reported (-v), because that
// is the machine's doing too. The machine also changes with time, so the garbage goes in parts, with as
// many puts without any between them. A million versions and more say something about it, and
// there is a difference between few keys with long histories and many with short ones:
//
//	go test ./node -run TestPutsWhileCollecting -v -timeout 2h -versions=10000000 -versions-keys=1000000
func TestPutsWhileCollecting(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Nodes: 1})
	client := c.Client(t)
	began := time.Now()
	parts := fillHistory(t, client)
	size := storeBytes(t, c)
	t.Logf("%d versions of %d keys written in %s; the store has %d MiB", *versionsFlag, *versionsKeysFlag, time.Since(began).Round(time.Millisecond), size>>20)

	// Enough for several flushes in each: without them the slowest hundredth is a matter of luck.
	puts := min(max(2_000, *versionsFlag/30), 300_000)
	w := measurePuts(t, client)
	var without, while []time.Duration
	quiet := func() {
		w.next(t, puts) // until the store has compacted what was written or removed
		times := w.next(t, puts)
		logTimes(t, "without", times)
		without = append(without, times...)
	}
	quiet()
	var removing time.Duration
	for _, rev := range parts {
		began = time.Now()
		_, err := client.Compact(t.Context(), rev, clientv3.WithCompactPhysical())
		require.NoError(t, err)
		removing += time.Since(began)
		times := w.take()
		logTimes(t, "while collecting", times)
		while = append(while, times...)
		quiet()
	}
	w.stop(t)
	t.Logf("removed in %s, %.0f a second; the store has %d MiB, and less when it has rewritten its files",
		removing.Round(time.Millisecond), float64(*versionsFlag)/removing.Seconds(), storeBytes(t, c)>>20)
	t.Log("all of them:")
	logTimes(t, "without", without)
	logTimes(t, "while collecting", while)

	m := c.Node(1).Inside()
	require.NoError(t, m.Host().WaitCollected(t.Context(), m.Map().Compacted()))
	got, err := client.Get(t.Context(), "fill", clientv3.WithPrefix(), clientv3.WithCountOnly())
	require.NoError(t, err)
	require.EqualValues(t, *versionsKeysFlag, got.Count)
}

func logTimes(t *testing.T, phase string, times []time.Duration) {
	t.Logf("%-16s  %7d puts  p50 %s  p99 %s", phase, len(times), quantile(times, 0.5), quantile(times, 0.99))
}

const (
	fillTxn   = 100 // keys of a transaction
	fillBytes = 256
)

// fillHistory overwrites the keys in turn until there are so many versions, and returns for each part
// of them the last revision.
func fillHistory(t *testing.T, client *clientv3.Client) []int64 {
	t.Helper()
	var next atomic.Int64
	lasts := make([]atomic.Int64, *versionsPartsFlag)
	var work sync.WaitGroup
	for range 32 {
		work.Go(func() {
			for {
				from := int(next.Add(fillTxn)) - fillTxn
				if from >= *versionsFlag {
					return
				}
				ops := make([]clientv3.Op, fillTxn)
				for i := range ops {
					ops[i] = clientv3.OpPut(fmt.Sprintf("fill%07d", (from+i)%*versionsKeysFlag), value())
				}
				resp, err := client.Txn(t.Context()).Then(ops...).Commit()
				if err != nil {
					t.Error(err)
					return
				}
				last := &lasts[from*len(lasts) / *versionsFlag]
				for rev := last.Load(); rev < resp.Header.Revision && !last.CompareAndSwap(rev, resp.Header.Revision); rev = last.Load() {
				}
			}
		})
	}
	work.Wait()
	revs := make([]int64, len(lasts))
	for i := range lasts {
		revs[i] = lasts[i].Load()
	}
	return revs
}

// value is one that does not compress.
func value() string {
	b := make([]byte, 0, fillBytes)
	for len(b) < fillBytes {
		b = binary.LittleEndian.AppendUint64(b, rand.Uint64())
	}
	return string(b)
}

func storeBytes(t *testing.T, c *testcluster.Cluster) int64 {
	st, err := c.Client(t).Status(t.Context(), c.Node(1).ClientAddr())
	require.NoError(t, err)
	return st.DbSize
}

// meter is a few clients that put without a pause, and how long each put took.
type meter struct {
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu struct {
		sync.Mutex
		times  []time.Duration
		failed error
	}
}

func measurePuts(t *testing.T, client *clientv3.Client) *meter {
	ctx, cancel := context.WithCancel(t.Context())
	m := &meter{cancel: cancel}
	t.Cleanup(cancel)
	for i := range 8 {
		m.work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				began := time.Now()
				_, err := client.Put(ctx, fmt.Sprintf("load%d/%d", i, n%1000), value())
				m.mu.Lock()
				if err == nil {
					m.mu.times = append(m.mu.times, time.Since(began))
				} else if ctx.Err() == nil {
					m.mu.failed = err
				}
				m.mu.Unlock()
			}
		})
	}
	return m
}

func (m *meter) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.mu.times)
}

// take returns how long puts took since it was last called, and forgets.
func (m *meter) take() []time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	times := m.mu.times
	m.mu.times = nil
	return times
}

// next waits for so many puts and returns how long they took.
func (m *meter) next(t *testing.T, puts int) []time.Duration {
	var times []time.Duration
	for len(times) < puts {
		few := min(1000, puts-len(times)) // which never take long
		testcluster.Until(t, "puts", func() bool { return m.count() >= few })
		times = append(times, m.take()...)
	}
	return times
}

func (m *meter) stop(t *testing.T) {
	m.cancel()
	m.work.Wait()
	require.NoError(t, m.mu.failed)
}

func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[min(int(q*float64(len(times))), len(times)-1)].Round(10 * time.Microsecond)
}
