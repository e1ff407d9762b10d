package watch

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// BenchmarkPublish publishes updates of 64 puts to 10,000 keys of one prefix. The feeds
// are either all asked after each update, outside the time measured, or never.
func BenchmarkPublish(b *testing.B) {
	everybody := func(int) shard.Span { return prefix("k") }
	for _, c := range []struct {
		name  string
		feeds int
		span  func(i int) shard.Span
	}{
		{"nobody", 0, nil},
		{"1 on the prefix", 1, everybody},
		{"1000 on the prefix", 1000, everybody},
		{"10000 on other prefixes", 10_000, func(i int) shard.Span { return prefix(fmt.Sprintf("p%d/", i)) }},
		{"10000 on a key each", 10_000, func(i int) shard.Span { return shard.PointSpan(benchKey(i)) }},
	} {
		for _, polled := range []bool{true, false} {
			if c.feeds == 0 && polled {
				continue
			}
			b.Run(fmt.Sprintf("%s/polled=%v", c.name, polled), func(b *testing.B) { benchPublish(b, c.feeds, c.span, polled) })
		}
	}
}

func benchKey(i int) []byte { return fmt.Appendf(nil, "k%08d", i) }

const benchBatch = 64

func benchPublish(b *testing.B, feeds int, span func(int) shard.Span, polled bool) {
	s := newStore()
	h := New(testShard, s.view, s.history, nil)
	due := make([]*Subscription, 0, feeds)
	for i := range feeds {
		var sub *Subscription
		sub, err := h.Subscribe(Options{
			Epoch: testEpoch, Span: span(i), From: s.view.Floor + 1, Ready: func() { due = append(due, sub) },
		})
		require.NoError(b, err)
	}
	n, value := 0, make([]byte, 256)
	var publishing, polling time.Duration
	delivered := 0
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		batch := h.Collect()
		for range benchBatch {
			n++
			s.view.Floor++
			if batch != nil {
				batch.Add(&mvccpb.Event{Kv: &mvccpb.KeyValue{Key: benchKey(n * 7919 % 10_000), Value: value, ModRevision: int64(s.view.Floor)}}, nil)
			}
		}
		h.Publish(batch, s.view)
		publishing += time.Since(start)
		if !polled {
			continue
		}
		start = time.Now()
		for _, sub := range due {
			got, err := sub.Poll(1000)
			require.NoError(b, err)
			delivered += len(got.Events)
		}
		polling += time.Since(start)
		due = due[:0]
	}
	b.ReportMetric(float64(publishing.Nanoseconds())/float64(n), "ns/event")
	if delivered > 0 {
		b.ReportMetric(float64(polling.Nanoseconds())/float64(delivered), "ns/delivery")
	}
}
