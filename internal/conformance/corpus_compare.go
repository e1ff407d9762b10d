package conformance

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func compareStories() []*story {
	return []*story{compareResults(), compareMissing(), compareRanges(), compareOdd()}
}

// compareTargets and compareResultsAll are every value of the two enums.
func compareTargets() []pb.Compare_CompareTarget {
	return []pb.Compare_CompareTarget{pb.Compare_VERSION, pb.Compare_CREATE, pb.Compare_MOD, pb.Compare_VALUE, pb.Compare_LEASE}
}

func compareResultsAll() []pb.Compare_CompareResult {
	return []pb.Compare_CompareResult{pb.Compare_EQUAL, pb.Compare_GREATER, pb.Compare_LESS, pb.Compare_NOT_EQUAL}
}

// comparison builds a compare of target with v; values are compared with text.
func comparison(key string, target pb.Compare_CompareTarget, result pb.Compare_CompareResult, v int64, text string) *pb.Compare {
	c := &pb.Compare{Key: []byte(key), Target: target, Result: result}
	switch target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: v}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: v}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: v}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: []byte(text)}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: v}
	}
	return c
}

func whether(c ...*pb.Compare) *pb.TxnRequest { return txn(c, nil, nil) }

func compareResults() *story {
	s := newStory("compare/results")
	created := s.put("k", "l")
	modified := s.put("k", "m")
	operands := map[pb.Compare_CompareTarget][3]int64{
		pb.Compare_VERSION: {1, 2, 3},
		pb.Compare_CREATE:  {base.Rev(), created.Rev(), modified.Rev()},
		pb.Compare_MOD:     {created.Rev(), modified.Rev(), modified.Plus(1)},
		pb.Compare_LEASE:   {-1, 0, 1},
	}
	for _, target := range compareTargets() {
		for _, result := range compareResultsAll() {
			for i, text := range []string{"l", "m", "n"} {
				s.do(fmt.Sprintf("%s %s what is %s", target, result, [...]string{"below", "it", "above"}[i]),
					whether(comparison("k", target, result, operands[target][i], text)))
			}
		}
	}
	return s
}

func compareMissing() *story {
	s := newStory("compare/missing_key")
	s.put("other", "1")
	for _, target := range compareTargets() {
		for _, result := range compareResultsAll() {
			s.do("against zero", whether(comparison("k", target, result, 0, "")))
			s.do("against one", whether(comparison("k", target, result, 1, "1")))
		}
	}
	return s
}

func compareRanges() *story {
	s := newStory("compare/ranges")
	ending := func(end string, c *pb.Compare) *pb.TxnRequest {
		c.RangeEnd = []byte(end)
		return whether(c)
	}
	a := s.put("a", "1")
	s.put("a", "1")
	s.put("b", "1")
	last := s.put("c", "2")
	for _, target := range compareTargets() {
		for _, result := range compareResultsAll() {
			s.do("an empty range compares as zero, except by value", ending("y", comparison("x", target, result, 0, "")))
		}
	}
	s.do("an empty range is no version above 0", ending("y", exists("x")))
	s.do("every key must satisfy it: they do", ending("d", exists("a")))
	s.do("one does not", ending("d", version("a", pb.Compare_EQUAL, 1)))
	s.do("on the part where all do", ending("d", version("b", pb.Compare_EQUAL, 1)))
	s.do("values", ending("c", comparison("a", pb.Compare_VALUE, pb.Compare_EQUAL, 0, "1")))
	s.do("", ending("d", comparison("a", pb.Compare_VALUE, pb.Compare_EQUAL, 0, "1")))
	s.do("", ending("d", comparison("a", pb.Compare_VALUE, pb.Compare_LESS, 0, "3")))
	s.do("nothing changed since", ending("d", comparison("a", pb.Compare_MOD, pb.Compare_LESS, last.Plus(1), "")))
	s.do("something did", ending("d", comparison("a", pb.Compare_MOD, pb.Compare_LESS, last.Rev(), "")))
	s.do("created after", ending("d", comparison("a", pb.Compare_CREATE, pb.Compare_GREATER, a.Rev(), "")))
	s.do("from a key on", ending("\x00", version("b", pb.Compare_EQUAL, 1)))
	s.do("everything", ending("\x00", exists("\x00")))
	s.do("an inverted range is empty", ending("a", version("c", pb.Compare_EQUAL, 0)))
	s.do("", ending("a", exists("c")))
	s.do("leases", ending("d", comparison("a", pb.Compare_LEASE, pb.Compare_EQUAL, 0, "")))
	s.do("no key, with an end", ending("z", exists("")))
	return s
}

func compareOdd() *story {
	s := newStory("compare/odd")
	s.put("k", "v")
	s.put("empty", "")
	for _, target := range compareTargets() {
		for _, key := range []string{"k", "empty", "missing"} {
			s.do("no operand is zero or the empty value",
				whether(&pb.Compare{Key: []byte(key), Target: target, Result: pb.Compare_EQUAL}))
		}
		s.do("", whether(&pb.Compare{Key: []byte("k"), Target: target, Result: pb.Compare_GREATER}))
	}
	s.do("an operand of another target is none", whether(&pb.Compare{Key: []byte("k"), Target: pb.Compare_VERSION,
		Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_Value{Value: []byte("v")}}))
	s.do("", whether(&pb.Compare{Key: []byte("k"), Target: pb.Compare_VALUE,
		Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_Version{Version: 1}}))
	s.do("an unknown result is true", whether(&pb.Compare{Key: []byte("k"), Target: pb.Compare_VERSION, Result: 9,
		TargetUnion: &pb.Compare_Version{Version: 7}}))
	s.do("on a missing key, too", whether(&pb.Compare{Key: []byte("missing"), Target: pb.Compare_VERSION, Result: 9}))
	s.do("but not by value", whether(&pb.Compare{Key: []byte("missing"), Target: pb.Compare_VALUE, Result: 9}))
	s.do("an unknown target equals", whether(&pb.Compare{Key: []byte("k"), Target: 9, Result: pb.Compare_EQUAL,
		TargetUnion: &pb.Compare_Version{Version: 7}}))
	s.do("", whether(&pb.Compare{Key: []byte("k"), Target: 9, Result: pb.Compare_NOT_EQUAL}))
	s.do("an unknown target of a missing key", whether(&pb.Compare{Key: []byte("missing"), Target: 9, Result: pb.Compare_EQUAL}))
	s.do("no key", whether(exists("")))
	s.do("no key after a compare that fails", whether(missing("k"), exists("")))
	s.do("all must hold: they do", whether(exists("k"), missing("missing")))
	s.do("the second does not", whether(exists("k"), exists("missing")))
	s.do("the same key twice", whether(exists("k"), version("k", pb.Compare_EQUAL, 1)))
	s.do("contradictions are only false", whether(exists("k"), missing("k")))
	s.do("an empty value is below any other", whether(comparison("empty", pb.Compare_VALUE, pb.Compare_LESS, 0, "\x00")))
	s.do("an empty value equals the empty value", whether(comparison("empty", pb.Compare_VALUE, pb.Compare_EQUAL, 0, "")))
	s.do("negative operands", whether(version("k", pb.Compare_GREATER, -5)))
	return s
}
