package etcdapi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A large response is divided for those who ask for that, and its parts say so.
func TestWatchFragments(t *testing.T) {
	f := newFaceOf(t, Config{MaxRequestBytes: 1})
	limit := 1 + messageOverheadBytes
	var keys []string
	for i := range 5 {
		keys = append(keys, fmt.Sprintf("a%d", i))
	}
	f.watches.put(strings.Repeat("v", limit/2-100), keys...)
	w := f.wire(t, t.Context())
	prefix := &pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("b"), StartRevision: 1}
	w.create(prefix)
	require.Equal(t, "0@43 created", w.next())
	require.Equal(t, "0@43 put a0=vvvvvvvvv put a1=vvvvvvvvv put a2=vvvvvvvvv put a3=vvvvvvvvv put a4=vvvvvvvvv", w.next())
	prefix.Fragment = true
	w.create(prefix)
	require.Equal(t, "1@43 created", w.next())
	require.Equal(t, "1@43 put a0=vvvvvvvvv put a1=vvvvvvvvv ...", w.next())
	require.Equal(t, "1@43 put a2=vvvvvvvvv put a3=vvvvvvvvv ...", w.next())
	require.Equal(t, "1@43 put a4=vvvvvvvvv", w.next())
	f.watches.put("small", "a", "a1")
	require.ElementsMatch(t, []string{"0@44 put a=small put a1=small", "1@44 put a=small put a1=small"}, []string{w.next(), w.next()})
}

// A revision is never divided over responses; many are, so that none becomes too large.
func TestWatchResponsesAreBounded(t *testing.T) {
	f := newFace(t)
	for range 30 {
		f.watches.put(strings.Repeat("v", responseBytes/8), "a1", "a2")
	}
	w := f.wire(t, t.Context())
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("b"), StartRevision: 1})
	require.Equal(t, "0@72 created", w.next())
	var events, responses int
	for events < 60 {
		resp, err := w.stream.Recv()
		require.NoError(t, err)
		require.Zero(t, len(resp.Events)%2)
		require.LessOrEqual(t, len(resp.Events), 10)
		require.Equal(t, resp.Events[len(resp.Events)-1].Kv.ModRevision, resp.Header.Revision)
		events, responses = events+len(resp.Events), responses+1
	}
	require.Equal(t, 60, events)
	require.Less(t, responses, 10)
}

// What a watch has beyond one poll comes too when that poll's events took several responses: the feed says so only once.
func TestWatchGoesOnBehindABacklog(t *testing.T) {
	f := newFace(t)
	const events = 2*pollEvents + 1
	for range events {
		f.watches.put(strings.Repeat("v", responseBytes/32), "a")
	}
	w := f.wire(t, t.Context())
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 1})
	w.next()
	for sent := 0; sent < events; {
		resp, err := w.stream.Recv()
		require.NoError(t, err)
		sent += len(resp.Events)
	}
}

// Watches take turns: one with much to tell does not keep another waiting.
func TestWatchesTakeTurns(t *testing.T) {
	f := newFace(t)
	const turns = 200 // of the first watch alone
	for range turns * pollEvents {
		f.watches.put("1", "a")
	}
	f.watches.put("2", "b")
	w := f.wire(t, t.Context())
	w.create(from("a", 1))
	w.create(from("b", 1))
	for responses := 0; ; responses++ {
		require.Less(t, responses, turns/2)
		if resp, err := w.stream.Recv(); err == nil && len(resp.Events) > 0 && resp.WatchId == 1 {
			return
		}
	}
}

// More watches than fit into a turn: each gets every change, and its own ID with it.
func TestManyWatchesOfOneStream(t *testing.T) {
	const watches = 3*turnMax + 1
	f := newFace(t)
	w := f.wire(t, t.Context())
	for id := range watches {
		w.create(key("a"))
		require.Equal(t, fmt.Sprintf("%d@42 created", id), w.next())
	}
	for rev := 43; rev < 46; rev++ {
		f.watches.put("1", "a")
		got := make(map[string]bool)
		for range watches {
			got[w.next()] = true
		}
		for id := range watches {
			require.Contains(t, got, fmt.Sprintf("%d@%d put a=1", id, rev))
		}
	}
}
