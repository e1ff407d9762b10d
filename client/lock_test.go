package client_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// Who waits for a lock goes on waiting when its watch cannot: history was compacted while the node was away.
func TestLockOverACompaction(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Nodes: 1})
	registry := prometheus.NewRegistry()
	cl, ctx := connect(t, c, func(cfg *client.Config) { cfg.Registerer = registry }), t.Context()
	one, err := cl.NewSession(ctx, time.Minute)
	require.NoError(t, err)
	two, err := cl.NewSession(ctx, time.Minute)
	require.NoError(t, err)
	held, err := one.Lock(ctx, "lock")
	require.NoError(t, err)
	next := make(chan error, 1)
	go func() {
		_, err := two.Lock(ctx, "lock")
		next <- err
	}()
	testcluster.Until(t, "the second to have asked for it", func() bool { return endedTxns(t, registry) == 2 }) // that is not to be cut off
	for i := range 3 {
		put, err := cl.Put(ctx, fmt.Sprint("k", i), nil)
		require.NoError(t, err)
		etcd := c.Client(t)
		_, err = etcd.Compact(ctx, put.Revision)
		require.NoError(t, err)
		c.Node(1).Restart(t)
	}
	select {
	case err := <-next:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	require.NoError(t, held.Unlock(ctx))
	require.NoError(t, <-next)
}

// Who waits for a lock and cannot know what happened looks whether it is free. It writes nothing before: the outcome would be
// unknown, and the wait over, if a node stopped then.
func TestLockWithoutHistoryIsRead(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Nodes: 1})
	cl, ctx := connect(t, c), t.Context()
	one, err := cl.NewSession(ctx, time.Minute)
	require.NoError(t, err)
	held, err := one.Lock(ctx, "lock")
	require.NoError(t, err)

	ended := make(chan string, 10)
	compact := sync.OnceFunc(func() { // before it can watch
		put, err := cl.Put(ctx, "k", nil)
		assert.NoError(t, err)
		_, err = c.Client(t).Compact(ctx, put.Revision)
		assert.NoError(t, err)
	})
	traced := endings(func(name string) {
		if name == "flotilla.txn" {
			compact()
		}
		ended <- name
	})
	other := connect(t, c, func(cfg *client.Config) { cfg.TracerProvider = traced.provider() })
	two, err := other.NewSession(ctx, time.Minute)
	require.NoError(t, err)
	next := make(chan error, 1)
	go func() {
		_, err := two.Lock(ctx, "lock")
		next <- err
	}()
	require.Equal(t, "flotilla.txn", <-ended)
	require.Equal(t, "flotilla.get", <-ended)
	require.NoError(t, held.Unlock(ctx))
	require.NoError(t, <-next)
	require.Equal(t, "flotilla.txn", <-ended)
}

// endings is a tracer that is told when each span ends, before who waits for the operation is.
type endings func(name string)

func (e endings) provider() trace.TracerProvider { return endingsProvider{ended: e} }

type endingsProvider struct {
	noop.TracerProvider
	ended endings
}

func (p endingsProvider) Tracer(string, ...trace.TracerOption) trace.Tracer {
	return endingsTracer{ended: p.ended}
}

type endingsTracer struct {
	noop.Tracer
	ended endings
}

func (e endingsTracer) Start(ctx context.Context, name string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	return ctx, endingsSpan{name: name, ended: e.ended}
}

type endingsSpan struct {
	noop.Span
	name  string
	ended endings
}

func (s endingsSpan) End(...trace.SpanEndOption) { s.ended(s.name) }

// endedTxns is how many transactions of a client have ended.
func endedTxns(t *testing.T, of prometheus.Gatherer) (n float64) {
	t.Helper()
	families, err := of.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != "flotilla_client_operations_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "op" && l.GetValue() == "txn" {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}
