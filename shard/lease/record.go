package lease

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

const format = 1

// Record is a lease at its home. It is a value: never changed in place, so that it can be shared.
type Record struct {
	ID  int64
	TTL int64 // seconds, as granted
	// Incarnation distinguishes this lease from an earlier or later one with the same ID.
	Incarnation int64
	// Revoking leases get no more spans; their keys are being deleted.
	Revoking bool
	// Spans are the spans that may have attached keys: disjoint, not adjacent, ascending (L1).
	Spans []shard.Span
}

// Attach returns the record with the span added to its spans.
func (r *Record) Attach(span shard.Span) *Record {
	out := *r
	out.Spans = unite(r.Spans, span)
	return &out
}

// Revoke returns the record marked as revoking.
func (r *Record) Revoke() *Record {
	out := *r
	out.Revoking = true
	return &out
}

// Within reports whether keys may be attached only in the span.
func (r *Record) Within(span shard.Span) bool {
	return !slices.ContainsFunc(r.Spans, func(s shard.Span) bool { return !span.ContainsSpan(s) })
}

// unite adds a span to disjoint ascending ones.
func unite(spans []shard.Span, span shard.Span) []shard.Span {
	out := make([]shard.Span, 0, len(spans)+1)
	for i, s := range spans {
		switch {
		case len(s.End) > 0 && bytes.Compare(s.End, span.Start) < 0:
			out = append(out, s)
		case len(span.End) > 0 && bytes.Compare(span.End, s.Start) < 0:
			return append(append(out, span), spans[i:]...)
		default: // they overlap or touch
			span = hull(span, s)
		}
	}
	return append(out, span)
}

// hull is the smallest span that holds both.
func hull(a, b shard.Span) shard.Span {
	if bytes.Compare(b.Start, a.Start) < 0 {
		a.Start = b.Start
	}
	if len(a.End) > 0 && (len(b.End) == 0 || bytes.Compare(b.End, a.End) > 0) {
		a.End = b.End
	}
	return a
}

// Proto converts the record to its stored form.
func (r *Record) Proto() *shardpb.LeaseRecord {
	return &shardpb.LeaseRecord{
		Format: format, Lease: r.ID, Ttl: r.TTL, Incarnation: r.Incarnation, Revoking: r.Revoking, Spans: SpansProto(r.Spans),
	}
}

// RecordOf converts a record from its stored form. It aliases p.
func RecordOf(p *shardpb.LeaseRecord) (*Record, error) {
	if p.Format != format {
		return nil, fmt.Errorf("record of lease %x: format %d is not known to this version of flotilla", p.Lease, p.Format)
	}
	r := &Record{ID: p.Lease, TTL: p.Ttl, Incarnation: p.Incarnation, Revoking: p.Revoking}
	for _, s := range p.Spans {
		r.Spans = append(r.Spans, shard.Span{Start: s.Start, End: s.End})
	}
	return r, nil
}

// SpansProto converts spans to their stored form.
func SpansProto(spans []shard.Span) []*shardpb.Span {
	var out []*shardpb.Span
	for _, s := range spans {
		out = append(out, &shardpb.Span{Start: s.Start, End: s.End})
	}
	return out
}
