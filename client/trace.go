package client

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// tracer creates a span for every operation; nil without tracing.
type tracer struct{ trace.Tracer }

func newTracer(p trace.TracerProvider) *tracer {
	if p == nil {
		return nil
	}
	return &tracer{p.Tracer("github.com/flotilla-kv/flotilla/client")}
}

// observes reports whether operations are counted or traced.
func (c *Client) observes() bool { return c.metrics != nil || c.tracer != nil }

// observed wraps done so that the operation is counted and traced.
func (c *Client) observed(ctx context.Context, op *Op, done func(Result, error)) func(Result, error) {
	started := time.Now()
	var span trace.Span
	if c.tracer != nil {
		_, span = c.tracer.Start(ctx, "flotilla."+op.kind.String(), trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(started))
	}
	return func(r Result, err error) {
		c.metrics.ended(op.kind, started, err)
		if span != nil {
			span.SetAttributes(attribute.String("flotilla.outcome", outcomeOf(err)), attribute.Int64("flotilla.revision", r.Revision))
			if err != nil {
				span.RecordError(err)
				span.SetStatus(codes.Error, err.Error())
			}
			span.End()
		}
		done(r, err)
	}
}
