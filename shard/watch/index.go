package watch

import (
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// index finds the armed subscriptions that a key concerns. Nearly all watches are of one
// key or of one prefix, and both are found by looking them up, however many there are:
// one look for the key and one for every length that a watched prefix has. What is left,
// ranges of another form and prefixes that the edge of the shard cuts, is few and a list.
type index struct {
	keys     map[string]*group
	prefixes map[string]*group
	// lengths are those of prefixes, with how many have each.
	lengths map[int]int
	ranges  []*group
}

// group is everybody who watches one span. Thousands who watch the same are one entry of
// the index, and one look when none of them is armed.
type group struct {
	span    shard.Span
	members int
	// armed knows the place of each of its subscriptions (Subscription.slot).
	armed []*Subscription
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

func newIndex() index {
	return index{keys: make(map[string]*group), prefixes: make(map[string]*group), lengths: make(map[int]int)}
}

// join adds a member to the span's group.
func (x *index) join(span shard.Span) *group {
	g := x.find(span)
	if g == nil {
		g = &group{span: span}
		x.add(g)
	}
	g.members++
	return g
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
func (x *index) leave(g *group) {
	if g.members--; g.members > 0 {
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
	s.armed, s.slot = true, len(g.armed)
	g.armed = append(g.armed, s)
	g.tidy()
}

// tidy drops the answer when all members have been given everything.
func (g *group) tidy() {
	if len(g.armed) == g.members {
		g.answer = answer{}
	}
}

// keep keeps an answer for the others, if there are some.
func (g *group) keep(a answer) {
	if len(g.armed) < g.members && len(a.events) > 0 {
		g.answer = a
	}
}

func (g *group) disarm(s *Subscription) {
	last := len(g.armed) - 1
	g.armed[s.slot] = g.armed[last]
	g.armed[s.slot].slot = s.slot
	g.armed[last] = nil
	g.armed = g.armed[:last]
	s.armed = false
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
