package load

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/bubble"
)

// newDelivery is a run with one watcher, which began a second ago.
func newDelivery() *delivery {
	began := time.Now().Add(-time.Second)
	return &delivery{began: began, win: window{start: began, end: began.Add(time.Hour)}, rec: newRecorder(), received: make([]atomic.Int64, 1)}
}

// deliver gives the watcher events of the given revisions, all put at the given time.
func (d *delivery) deliver(put time.Time, revisions ...int64) {
	events := make(chan clientv3.WatchResponse, len(revisions))
	for _, rev := range revisions {
		kv := &mvccpb.KeyValue{Value: []byte(d.stamp(put, "a value")), ModRevision: rev}
		events <- clientv3.WatchResponse{Events: []*clientv3.Event{{Kv: kv}}}
	}
	close(events)
	d.receive(0, events)
}

func TestLatencyIsFromThePutToTheArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDelivery()
		put := time.Now()
		bubble.Pass(250 * time.Millisecond)
		d.deliver(put, 7)
		got := d.rec.result(d.win)
		require.Equal(t, int64(1), got.Operations)
		require.InDelta(t, 250_000, got.Latency.P50, 250)
	})
}

// L4: events out of order.
func TestDisorderIsAnError(t *testing.T) {
	d := newDelivery()
	d.deliver(time.Now(), 7, 9, 8, 10, 10)
	got := d.rec.result(d.win)
	require.Equal(t, map[string]int64{errDisorder.Error(): 2}, got.Errors)
	require.Equal(t, int64(3), got.Operations)
}

// L4: events that never come. Those that come late are waited for.
func TestLostEventsAreAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDelivery()
		d.written.Store(2)
		d.deliver(time.Now(), 7)
		time.AfterFunc(drainMax/2, func() { d.deliver(time.Now(), 8) })
		d.drain(t.Context())
		require.Empty(t, d.rec.result(d.win).Errors)

		d.written.Store(3)
		d.drain(t.Context())
		require.Equal(t, map[string]int64{errLost.Error(): 1}, d.rec.result(d.win).Errors)
	})
}

// After a put that may have been made or not, nobody knows what should have come.
func TestUnknownPutsAreNotMissed(t *testing.T) {
	d := newDelivery()
	d.written.Store(3)
	d.failed.Store(1)
	d.drain(t.Context())
	require.Empty(t, d.rec.result(d.win).Errors)
}
