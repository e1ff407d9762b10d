package auth

import (
	"bytes"
	"slices"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// reach is what a user's roles permit together.
type reach struct {
	read, write []shard.Span // in order, not touching each other
}

func (v *view) reachOf(u *placementpb.User) *reach {
	if r, ok := v.reach.Load(u.Name); ok {
		return r.(*reach)
	}
	r := &reach{}
	for _, name := range u.Roles {
		for _, p := range v.Role(name).GetPermissions() {
			span := spanOf(p.Key, p.RangeEnd)
			if p.Access != placementpb.Access_WRITE {
				r.read = append(r.read, span)
			}
			if p.Access != placementpb.Access_READ {
				r.write = append(r.write, span)
			}
		}
	}
	r.read, r.write = joined(r.read), joined(r.write)
	v.reach.Store(u.Name, r)
	return r
}

// spanOf is the span of a key, or of a range of etcd's API. An empty span is taken for its first key.
func spanOf(key, end []byte) shard.Span {
	switch {
	case bytes.Equal(end, []byte{0}):
		return shard.Span{Start: key}
	case bytes.Compare(end, key) <= 0:
		return shard.Span{Start: key, End: append(bytes.Clone(key), 0)}
	}
	return shard.Span{Start: key, End: end}
}

// joined returns the spans in order, with those that touch each other as one.
func joined(spans []shard.Span) []shard.Span {
	slices.SortFunc(spans, func(a, b shard.Span) int { return bytes.Compare(a.Start, b.Start) })
	var out []shard.Span
	for _, s := range spans {
		if n := len(out); n > 0 && (len(out[n-1].End) == 0 || bytes.Compare(s.Start, out[n-1].End) <= 0) {
			if len(out[n-1].End) > 0 && (len(s.End) == 0 || bytes.Compare(s.End, out[n-1].End) > 0) {
				out[n-1].End = s.End
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// covers reports whether the whole range is within reach.
func (r *reach) covers(key, end []byte, write bool) bool {
	spans := r.read
	if write {
		spans = r.write
	}
	want := spanOf(key, end)
	i, found := slices.BinarySearchFunc(spans, want.Start, func(s shard.Span, key []byte) int { return bytes.Compare(s.Start, key) })
	if !found {
		i--
	}
	if i < 0 {
		return false
	}
	last := spans[i].End
	return len(last) == 0 || len(want.End) > 0 && bytes.Compare(want.End, last) <= 0
}
