package shard

import (
	"bytes"
	"fmt"
)

// Span is the half-open key interval [Start, End). An empty Start is the lowest
// key; an empty End means "to the end of the keyspace".
type Span struct {
	Start, End []byte
}

// Everything returns the span of the whole keyspace.
func Everything() Span { return Span{} }

// PointSpan returns the span that holds exactly key. It copies key.
func PointSpan(key []byte) Span {
	buf := make([]byte, 2*len(key)+1)
	copy(buf, key)
	copy(buf[len(key):], key)
	return Span{Start: buf[:len(key):len(key)], End: buf[len(key):]}
}

// RequestSpan converts etcd's (key, range_end) pair. An empty range_end means the
// key alone, "\x00" means every key from key on, and anything else is an exclusive
// end (which may leave the span empty, as in etcd). It aliases its arguments.
func RequestSpan(key, rangeEnd []byte) Span {
	switch {
	case len(rangeEnd) == 0:
		return PointSpan(key)
	case len(rangeEnd) == 1 && rangeEnd[0] == 0:
		return Span{Start: key}
	default:
		return Span{Start: key, End: rangeEnd}
	}
}

// Empty reports whether no key can lie in the span.
func (s Span) Empty() bool {
	return len(s.End) > 0 && bytes.Compare(s.Start, s.End) >= 0
}

// Contains reports whether key lies in the span.
func (s Span) Contains(key []byte) bool {
	return bytes.Compare(s.Start, key) <= 0 && (len(s.End) == 0 || bytes.Compare(key, s.End) < 0)
}

// ContainsSpan reports whether every key of o lies in s. An empty o is contained
// when its Start is.
func (s Span) ContainsSpan(o Span) bool {
	if o.Empty() {
		return s.Contains(o.Start)
	}
	if bytes.Compare(s.Start, o.Start) > 0 {
		return false
	}
	if len(s.End) == 0 {
		return true
	}
	return len(o.End) > 0 && bytes.Compare(o.End, s.End) <= 0
}

// Overlaps reports whether some key lies in both spans.
func (s Span) Overlaps(o Span) bool { return !s.Intersect(o).Empty() }

// Intersect returns the keys that lie in both spans; the result may be Empty.
func (s Span) Intersect(o Span) Span {
	out := s
	if bytes.Compare(o.Start, out.Start) > 0 {
		out.Start = o.Start
	}
	if len(o.End) > 0 && (len(out.End) == 0 || bytes.Compare(o.End, out.End) < 0) {
		out.End = o.End
	}
	return out
}

// Equal reports whether both spans hold the same keys by the same bounds.
func (s Span) Equal(o Span) bool {
	return bytes.Equal(s.Start, o.Start) && bytes.Equal(s.End, o.End)
}

// String prints the span as operators read it, for example ["a", "m") or ["m", ∞).
func (s Span) String() string {
	if len(s.End) == 0 {
		return fmt.Sprintf("[%q, ∞)", s.Start)
	}
	return fmt.Sprintf("[%q, %q)", s.Start, s.End)
}
