package watch

import (
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// index has all subscriptions and finds the armed ones that a key concerns. Nearly all
// watches are of one key or of one prefix, and both are found by looking them up, however
// many there are: one look for the key and one for every length that a watched prefix has.
// What is left, ranges of another form and prefixes that the edge of the shard cuts, is few
// and a list.
type index struct {
	hub      *Hub // whose it is
	keys     map[string]*group
	prefixes map[string]*group
	// lengths are those of prefixes, with how many have each.
	lengths map[int]int
	ranges  []*group
}

// group is everybody who watches one span. Thousands who watch the same are one entry of
// the index, and one look when none of them is armed.
type group struct {
	hub  *Hub // immutable, like span
	span shard.Span
	// members are the armed ones, and behind those the others. Each knows its place
	// (Subscription.slot).
	members []*Subscription
	armed   int
	// answer is what the first one that asked was given, for those that follow.
	answer answer
}

// answer is what has changed in a group's span since pos, all of it: the next change drops
// it. Without events there is none. It goes when nobody is left to ask, so that what
// nobody reads holds no more than one piece (W3).
type answer struct {
	pos    shard.Revision
	prevKV bool
	events []*mvccpb.Event
}

// to returns what the answer says to s.
func (a *answer) to(s *Subscription) ([]*mvccpb.Event, bool) {
	return a.events, len(a.events) > 0 && a.pos == s.pos && a.prevKV == s.prevKV && !s.armed && s.end == nil
}

func newIndex(h *Hub) index {
	return index{hub: h, keys: make(map[string]*group), prefixes: make(map[string]*group), lengths: make(map[int]int)}
}

// join makes s, which is not armed, a member of the span's group.
func (x *index) join(span shard.Span, s *Subscription) {
	g := x.find(span)
	if g == nil {
		g = &group{hub: x.hub, span: span}
		x.add(g)
	}
	s.group, s.slot = g, int32(len(g.members))
	g.members = append(g.members, s)
}

func (x *index) find(span shard.Span) *group {
	switch {
	case isKey(span):
		return x.keys[string(span.Start)]
	case isPrefix(span):
		return x.prefixes[string(span.Start)]
	}
	i := slices.IndexFunc(x.ranges, func(g *group) bool { return g.span.Equal(span) })
	if i < 0 {
		return nil
	}
	return x.ranges[i]
}

func (x *index) add(g *group) {
	switch {
	case isKey(g.span):
		x.keys[string(g.span.Start)] = g
	case isPrefix(g.span):
		x.prefixes[string(g.span.Start)] = g
		x.lengths[len(g.span.Start)]++
	default:
		x.ranges = append(x.ranges, g)
	}
}

// leave takes a member out, who is not armed.
func (x *index) leave(s *Subscription) {
	g := s.group
	last := len(g.members) - 1
	g.swap(int(s.slot), last)
	g.members[last] = nil
	g.members = g.members[:last]
	if last > 0 {
		g.tidy()
		return
	}
	switch {
	case isKey(g.span):
		delete(x.keys, string(g.span.Start))
	case isPrefix(g.span):
		delete(x.prefixes, string(g.span.Start))
		n := len(g.span.Start)
		if x.lengths[n]--; x.lengths[n] == 0 {
			delete(x.lengths, n)
		}
	default:
		x.ranges = slices.DeleteFunc(x.ranges, func(o *group) bool { return o == g })
	}
}

// all lists the groups as they are now.
func (x *index) all() []*group {
	list := slices.Clone(x.ranges)
	list = slices.AppendSeq(list, maps.Values(x.keys))
	return slices.AppendSeq(list, maps.Values(x.prefixes))
}

// each calls f with every group that holds the key.
func (x *index) each(key []byte, f func(*group)) {
	if g := x.keys[string(key)]; g != nil {
		f(g)
	}
	for n := range x.lengths {
		if n > len(key) {
			continue
		}
		if g := x.prefixes[string(key[:n])]; g != nil {
			f(g)
		}
	}
	for _, g := range x.ranges {
		if g.span.Contains(key) {
			f(g)
		}
	}
}

func (g *group) arm(s *Subscription) {
	g.swap(int(s.slot), g.armed)
	g.armed++
	s.armed = true
	g.tidy()
}

// tidy drops the answer when all members have been given everything.
func (g *group) tidy() {
	if g.armed == len(g.members) {
		g.answer = answer{}
	}
}

// keep keeps an answer for the others, if there are some.
func (g *group) keep(a answer) {
	if g.armed < len(g.members) && len(a.events) > 0 {
		g.answer = a
	}
}

func (g *group) disarm(s *Subscription) {
	g.armed--
	g.swap(int(s.slot), g.armed)
	s.armed = false
}

func (g *group) swap(i, j int) {
	m := g.members
	m[i], m[j] = m[j], m[i]
	m[i].slot, m[j].slot = int32(i), int32(j)
}

// isKey reports whether the span is a single key.
func isKey(s shard.Span) bool {
	n := len(s.Start)
	return len(s.End) == n+1 && s.End[n] == 0 && string(s.End[:n]) == string(s.Start)
}

// isPrefix reports whether the span is every key that begins with Start: End is Start
// with its last byte one higher. A last byte of 0xff has no such End.
func isPrefix(s shard.Span) bool {
	n := len(s.Start) - 1
	return n >= 0 && len(s.End) == n+1 && s.Start[n] < 0xff && s.End[n] == s.Start[n]+1 && string(s.End[:n]) == string(s.Start[:n])
}
