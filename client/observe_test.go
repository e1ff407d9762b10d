package client_test

import (
	"context"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// spans counts the spans that are begun, by name.
type spans struct {
	noop.TracerProvider
	mu   sync.Mutex
	seen map[string]int
}

func (s *spans) Tracer(string, ...trace.TracerOption) trace.Tracer { return tracer{spans: s} }

type tracer struct {
	noop.Tracer
	spans *spans
}

func (t tracer) Start(ctx context.Context, name string, o ...trace.SpanStartOption) (context.Context, trace.Span) {
	t.spans.mu.Lock()
	t.spans.seen[name]++
	t.spans.mu.Unlock()
	return t.Tracer.Start(ctx, name, o...)
}

func TestMetricsAndSpans(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Nodes: 1})
	registry, traced := prometheus.NewRegistry(), &spans{seen: make(map[string]int)}
	cl := connect(t, c, func(cfg *client.Config) { cfg.Registerer, cfg.TracerProvider = registry, traced })
	_, err := cl.Put(t.Context(), "k", nil)
	require.NoError(t, err)
	_, err = cl.Put(t.Context(), "", nil)
	require.Error(t, err)
	cl.Batch(t.Context(), client.Get("k"), client.Delete("k"))

	families, err := registry.Gather()
	require.NoError(t, err)
	count := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			count[f.GetName()+labels(m)] += m.GetCounter().GetValue()
		}
	}
	require.InDelta(t, 1, count["flotilla_client_operations_total op=put outcome=ok"], 0, "%v", count)
	require.InDelta(t, 1, count["flotilla_client_operations_total op=put outcome=failed"], 0)
	require.InDelta(t, 1, count["flotilla_client_operations_total op=get outcome=ok"], 0)
	require.Contains(t, count, "flotilla_client_operation_seconds op=put")
	require.Contains(t, count, "flotilla_client_cache_misses_total")
	require.Equal(t, map[string]int{"flotilla.put": 2, "flotilla.get": 1, "flotilla.delete": 1}, traced.seen)
}

// A second client on the same registerer is refused, and nothing panics.
func TestRegistererIsOneClients(t *testing.T) {
	cfg := client.Config{Endpoints: []string{"127.0.0.1:1"}, Registerer: prometheus.NewRegistry()}
	one, err := client.New(cfg)
	require.NoError(t, err)
	t.Cleanup(one.Close)
	_, err = client.New(cfg)
	require.ErrorContains(t, err, "WrapRegistererWith")
	cfg.Registerer = prometheus.WrapRegistererWith(prometheus.Labels{"client": "two"}, prometheus.NewRegistry())
	two, err := client.New(cfg)
	require.NoError(t, err)
	two.Close()
}

func labels(m *dto.Metric) (out string) {
	for _, l := range m.Label {
		out += " " + l.GetName() + "=" + l.GetValue()
	}
	return out
}
