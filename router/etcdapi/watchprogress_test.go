package etcdapi

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Requested progress comes once for all, when all have been sent everything up to it.
func TestWatchProgressRequest(t *testing.T) {
	f := newFace(t)
	w := f.wire(t, t.Context())
	w.askProgress() // nobody to promise anything
	w.create(key("a"))
	w.create(key("b"))
	require.Equal(t, "0@42 created", w.next())
	require.Equal(t, "1@42 created", w.next())
	w.askProgress()
	require.Equal(t, "-1@42", w.next())

	f.watches.do(func() { f.watches.mu.behind["b"] = 42 })
	f.watches.put("2", "b")
	f.watches.put("1", "a")
	require.Equal(t, "0@44 put a=1", w.next())
	w.askProgress()
	f.aimed(t)
	f.watches.do(func() { delete(f.watches.mu.behind, "b") })
	require.Equal(t, "1@44 put b=2", w.next())
	require.Equal(t, "-1@44", w.next())
}

// aimed waits until a requested progress waits for a watch.
func (f *face) aimed(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		f.watches.mu.Lock()
		defer f.watches.mu.Unlock()
		return len(f.watches.mu.awaited) > 0
	}, 10*time.Second, time.Millisecond)
}

// A progress is never below an event that any watch was told before: clients would resume
// below it. And waiting for one that cannot be reached holds the others up only shortly.
func TestWatchProgressIsNeverBelowAnEvent(t *testing.T) {
	f := newFace(t)
	w := f.wire(t, t.Context())
	w.create(key("a"))
	w.create(key("b"))
	w.next()
	w.next()
	f.watches.do(func() { f.watches.mu.behind["b"] = 42 })
	f.watches.put("1", "a")
	require.Equal(t, "0@43 put a=1", w.next())
	f.watches.do(func() { f.watches.mu.known = 42 }) // what the shards said before the event
	w.askProgress()
	f.aimed(t)
	f.watches.put("2", "a")
	require.Equal(t, "0@44 put a=2", w.next(), "though b is at 42 and stays there")
	f.watches.do(func() { delete(f.watches.mu.behind, "b") })
	for { // tried again by itself
		got := w.next()
		if strings.HasPrefix(got, "-1@") {
			require.Equal(t, "-1@44", got)
			break
		}
	}
	require.GreaterOrEqual(t, f.watches.mu.asked, 2)
}

// While a watch waits for the future the stream promises nothing, as in etcd.
func TestWatchProgressAndTheFuture(t *testing.T) {
	f := newFace(t)
	w := f.wire(t, t.Context())
	w.create(from("a", 45))
	require.Equal(t, "0@42 created", w.next())
	w.askProgress()
	require.Eventually(t, func() bool {
		f.watches.mu.Lock()
		defer f.watches.mu.Unlock()
		return f.watches.mu.asked == 1
	}, 10*time.Second, time.Millisecond)
	f.watches.put("1", "a")
	f.watches.put("2", "a")
	f.watches.put("3", "a")
	require.Equal(t, "0@45 put a=3", w.next())
	w.askProgress()
	require.Equal(t, "-1@45", w.next())
}

// Watches that want to be told progress are, at intervals, if they had no events.
func TestWatchProgressNotify(t *testing.T) {
	f := newFaceOf(t, Config{WatchProgressInterval: 100 * time.Millisecond})
	w := f.wire(t, t.Context())
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true})
	w.create(key("b"))
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true, StartRevision: 100}) // the future
	// The first may be told before the last is created.
	for created, told := 0, 0; created < 3 || told < 3; {
		if got := w.next(); strings.HasSuffix(got, " created") {
			created++
		} else {
			require.Equal(t, "0@42", got)
			told++
		}
	}
}
