package history

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What happened in most of the scripts below: "a" is put at 10 and 20 and deleted at 30,
// "m" is put at 25.
func threeWrites() []Op {
	return []Op{
		put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "a", "2", 20), put(1, 4, 5, "m", "1", 25), del(1, 6, 7, "a", 30),
	}
}

var ( // nothing changes these
	a1 = kv("a", "1", 10, 10, 1)
	a2 = kv("a", "2", 10, 20, 2)
	m1 = kv("m", "1", 25, 25, 1)
)

func TestCorrectWatchesAreClean(t *testing.T) {
	for name, h := range map[string]struct {
		ops     []Op
		watches []Watch
		opt     Options
	}{
		"everything from the first revision": {threeWrites(), []Watch{
			watch(1, created(0, 1), events(4, 20, born(a1), changed(a1, a2)), events(6, 25, born(m1)), progress(7, 27), events(8, 30, gone(a2, 30)), progress(9, 30)),
		}, Options{}},
		"from the middle":          {threeWrites(), []Watch{watch(15, created(8, 30), events(8, 30, changed(a1, a2), born(m1), gone(a2, 30)))}, Options{}},
		"from now on":              {threeWrites(), []Watch{watch(0, created(3, 20), events(8, 30, born(m1), gone(a2, 30)))}, Options{}},
		"from the future":          {threeWrites(), []Watch{watch(26, created(0, 1), events(8, 30, gone(a2, 30)))}, Options{}},
		"ended before it came far": {threeWrites(), []Watch{watch(1, created(0, 1), events(2, 10, born(a1)))}, Options{}},
		"one key without puts": {threeWrites(), []Watch{
			{Of: Read{Key: "a"}, From: 1, NoPut: true, Responses: []WatchResponse{created(0, 1), events(8, 30, gone(KV{Key: "a"}, 30)), progress(9, 30)}},
		}, Options{}},
		"one revision in fragments": {[]Op{did(1, 0, 1, both("g1", "g2", "1"), wonBoth(10))}, []Watch{
			watch(1, created(0, 1), fragment(events(2, 10, born(kv("g1", "1", 10, 10, 1)))), events(3, 10, born(kv("g2", "1", 10, 10, 1))), progress(4, 10)),
		}, Options{}},
		"ended within fragments": {[]Op{did(1, 0, 1, both("g1", "g2", "1"), wonBoth(10))}, []Watch{
			watch(1, created(0, 1), fragment(events(2, 10, born(kv("g1", "1", 10, 10, 1))))),
		}, Options{}},
		"a watch shows that an unknown put happened": {[]Op{lostTrack(1, 0, 5, Put("a", "1"))}, []Watch{
			watch(1, created(0, 1), events(9, 10, born(a1))),
		}, Options{}},
		"a watch shows that an unknown delete happened": {[]Op{put(1, 0, 1, "a", "1", 10), lostTrack(1, 2, 5, Delete("a")), get(2, 10, 11, "a", 12)}, []Watch{
			watch(1, created(0, 1), events(2, 10, born(a1)), events(9, 12, gone(a1, 12))),
		}, Options{}},
		"an unknown transaction deleted what was not there": {[]Op{
			lostTrack(1, 0, 5, Request{Then: []Action{{Kind: ActionPut, Key: "g1", Value: "1"}, {Kind: ActionDelete, Key: "g2"}}}),
		}, []Watch{watch(1, created(0, 1), events(9, 10, born(kv("g1", "1", 10, 10, 1))), progress(10, 10))}, Options{}},
		"list, watch, list": {append(threeWrites(), all(2, 3, 4, 20, a2), all(2, 8, 9, 30, m1)), []Watch{
			watch(21, created(4, 20), events(6, 25, born(m1)), events(8, 30, gone(a2, 30))),
		}, Options{}},
		"progress on request": {append(threeWrites(), all(2, 8, 9, 30, m1)), []Watch{
			{Of: Read{Key: "a", End: "\x00"}, From: 31, Asked: times(10, 20), Responses: []WatchResponse{created(0, 1), answered(11, 30), answered(21, 30)}},
		}, Options{PromptProgress: true}},
		"the real etcd's progress may fall short": {append(threeWrites(), all(2, 8, 9, 30, m1)), []Watch{
			{Of: Read{Key: "m"}, From: 1, Asked: times(10), Responses: []WatchResponse{created(0, 1), answered(11, 24)}},
		}, Options{}},
		"compacted before it was read": {threeWrites(), []Watch{watch(5, created(0, 30), WatchResponse{Canceled: true, Compacted: 20})}, Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			hist := number(h.ops)
			hist.Watches = h.watches
			r := Check(hist, h.opt)
			require.True(t, r.Clean(), r.String())
		})
	}
}

func TestAnomaliesOfWatchesAreFound(t *testing.T) {
	for name, tc := range map[string]struct {
		want    Anomaly
		ops     []Op
		watches []Watch
	}{
		"responses out of order": {UnorderedEvents, threeWrites(), []Watch{
			watch(1, created(0, 1), events(2, 10, born(a1)), events(6, 25, born(m1)), events(7, 25, changed(a1, a2))),
		}},
		"events of a response out of order": {UnorderedEvents, threeWrites(), []Watch{watch(1, created(0, 1), events(2, 25, born(a1), born(m1), changed(a1, a2)))}},
		"an event twice":                    {DuplicateEvent, threeWrites(), []Watch{watch(1, created(0, 1), events(2, 10, born(a1)), events(3, 10, born(a1)))}},
		"an event again later": {DuplicateEvent, threeWrites(), []Watch{
			watch(1, created(0, 1), events(2, 10, born(a1)), events(6, 25, changed(a1, a2)), events(7, 25, born(a1))),
		}},
		"a revision split": {SplitRevision, []Op{did(1, 0, 1, both("g1", "g2", "1"), wonBoth(10))}, []Watch{
			watch(1, created(0, 1), events(2, 10, born(kv("g1", "1", 10, 10, 1))), events(3, 10, born(kv("g2", "1", 10, 10, 1)))),
		}},
		"progress between fragments": {SplitRevision, []Op{did(1, 0, 1, both("g1", "g2", "1"), wonBoth(10))}, []Watch{
			watch(1, created(0, 1), fragment(events(2, 10, born(kv("g1", "1", 10, 10, 1)))), progress(3, 10)),
		}},
		"half a revision": {LostEvent, []Op{did(1, 0, 1, both("g1", "g2", "1"), wonBoth(10))}, []Watch{
			watch(1, created(0, 1), events(2, 10, born(kv("g1", "1", 10, 10, 1)))),
		}},
		"an acknowledged put is passed over": {LostEvent, threeWrites(), []Watch{watch(1, created(0, 1), events(2, 10, born(a1)), events(6, 25, born(m1)))}},
		"an acknowledged delete is passed over": {LostEvent, threeWrites(), []Watch{
			watch(1, created(0, 1), events(6, 25, born(a1), changed(a1, a2), born(m1)), progress(8, 31)),
		}},
		"the first event is missing": {LostEvent, threeWrites(), []Watch{watch(10, created(0, 1), events(4, 20, changed(a1, a2)))}},
		"a put that only another watch shows is missing": {LostEvent, []Op{lostTrack(1, 0, 5, Put("a", "1"))}, []Watch{
			watch(1, created(0, 1), events(9, 10, born(a1))), watch(1, created(0, 1), progress(9, 11)),
		}},
		"a delete that only another watch shows is missing": {LostEvent, []Op{put(1, 0, 1, "a", "1", 10), lostTrack(1, 2, 5, Delete("a"))}, []Watch{
			watch(1, created(0, 1), events(2, 10, born(a1)), events(9, 12, gone(a1, 12))), watch(1, created(0, 1), events(2, 10, born(a1)), progress(9, 12)),
		}},
		"a put that only a read shows is missing": {LostEvent, []Op{lostTrack(1, 0, 5, Put("a", "1")), get(1, 6, 7, "a", 10, a1)}, []Watch{watch(1, created(0, 1), progress(9, 11))}},
		"from now on, and something is missing":   {LostEvent, threeWrites(), []Watch{watch(0, created(3, 20), events(8, 30, gone(a2, 30)))}},
		"before the start":                        {EventBeforeStart, threeWrites(), []Watch{watch(15, created(0, 1), events(2, 10, born(a1)))}},
		"before now":                              {EventBeforeStart, threeWrites(), []Watch{watch(0, created(3, 20), events(4, 20, changed(a1, a2)))}},
		"carried on one too early": {EventBeforeStart, threeWrites(), []Watch{
			watch(1, created(0, 1), events(2, 10, born(a1))), watch(11, created(3, 20), events(4, 20, born(a1), changed(a1, a2))),
		}},
		"progress before the event":               {EarlyProgress, threeWrites(), []Watch{watch(1, created(0, 1), events(2, 10, born(a1)), progress(3, 20), events(4, 20, changed(a1, a2)))}},
		"progress below what the watch waits for": {EarlyProgress, threeWrites(), []Watch{watch(100, created(0, 1), progress(9, 30))}},
		"progress runs back":                      {RevisionRegression, threeWrites(), []Watch{watch(31, created(0, 1), progress(8, 40), progress(9, 35))}},
		"progress below an event":                 {RevisionRegression, threeWrites(), []Watch{watch(1, created(0, 1), events(6, 25, born(a1), changed(a1, a2), born(m1)), progress(8, 20))}},
		"a header below its events":               {RevisionRegression, threeWrites(), []Watch{watch(1, created(0, 1), events(2, 9, born(a1)))}},
		"another key": {UnwantedEvent, threeWrites(), []Watch{
			{Of: Read{Key: "m"}, From: 1, Responses: []WatchResponse{created(0, 1), events(2, 10, born(a1))}},
		}},
		"a put that was filtered out": {UnwantedEvent, threeWrites(), []Watch{
			{Of: Read{Key: "a"}, From: 1, NoPut: true, Responses: []WatchResponse{created(0, 1), events(2, 10, born(a1))}},
		}},
		"a delete that was filtered out": {UnwantedEvent, threeWrites(), []Watch{
			{Of: Read{Key: "a"}, From: 21, NoDelete: true, Responses: []WatchResponse{created(0, 1), events(8, 30, gone(KV{Key: "a"}, 30))}},
		}},
		"no previous value of a put":     {WrongPrevKV, threeWrites(), []Watch{watch(11, created(0, 1), events(4, 20, born(a2)))}},
		"no previous value of a delete":  {WrongPrevKV, threeWrites(), []Watch{watch(26, created(0, 1), events(8, 30, gone(KV{Key: "a"}, 30)))}},
		"a previous value of a creation": {WrongPrevKV, threeWrites(), []Watch{watch(21, created(0, 1), events(6, 25, changed(m1, m1)))}},
		"a previous value nobody asked for": {WrongPrevKV, threeWrites(), []Watch{
			{Of: Read{Key: "a"}, From: 11, Responses: []WatchResponse{created(0, 1), events(4, 20, changed(a1, a2))}},
		}},
		"the value before the previous": {WrongPrevKV, threeWrites(), []Watch{watch(26, created(0, 1), events(8, 30, gone(a1, 30)))}},
		"a previous value that was never there": {ValueFromNowhere, threeWrites(), []Watch{
			watch(26, created(0, 1), events(8, 30, gone(kv("a", "x", 10, 20, 2), 30))),
		}},
		"a modification that claims to create": {ChangedPast, append(threeWrites(), getAt(2, 8, 9, "a", 20, a2)), []Watch{
			watch(11, created(0, 1), events(4, 20, born(kv("a", "2", 20, 20, 1)))),
		}},
		"a version that does not count":    {VersionMismatch, threeWrites(), []Watch{watch(11, created(0, 1), events(4, 20, born(kv("a", "2", 20, 20, 1))))}},
		"another value than was written":   {ValueFromNowhere, threeWrites(), []Watch{watch(1, created(0, 1), events(4, 10, born(kv("a", "x", 10, 10, 1))))}},
		"another revision than was told":   {TwoRevisions, threeWrites(), []Watch{watch(1, created(0, 1), events(4, 11, born(kv("a", "1", 11, 11, 1))))}},
		"a put that was refused":           {RefusedWriteApplied, []Op{refused(1, 0, 1, Put("a", "1"), "no")}, []Watch{watch(1, created(0, 1), events(4, 10, born(a1)))}},
		"a deletion where there was a put": {ChangedPast, threeWrites(), []Watch{watch(1, created(0, 1), events(4, 10, gone(kv("a", "0", 5, 5, 1), 10)))}},
		"a deletion nobody asked for":      {EventFromNowhere, threeWrites(), []Watch{watch(1, created(0, 1), events(9, 40, gone(m1, 40)))}},
		"a deletion of what was deleted":   {DoubleDelete, threeWrites(), []Watch{watch(26, created(0, 1), events(9, 40, gone(a2, 30), gone(a2, 40)))}},
		"list and watch disagree": {StateMismatch, append(threeWrites(), all(2, 3, 4, 20, a2), all(2, 8, 9, 30, m1)), []Watch{
			watch(21, created(4, 20), events(8, 30, gone(a2, 30))),
		}},
		"compacted, but not so far": {WrongCompaction, threeWrites(), []Watch{watch(5, created(0, 30), WatchResponse{Canceled: true, Compacted: 5})}},
		"progress on request falls short": {ShortProgress, append(threeWrites(), all(2, 8, 9, 30, m1)), []Watch{
			{Of: Read{Key: "a", End: "\x00"}, From: 26, Asked: times(10), Responses: []WatchResponse{created(0, 1), answered(11, 29)}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := number(tc.ops)
			h.Watches = tc.watches
			r := Check(h, Options{Seed: 7, PromptProgress: true})
			require.True(t, r.Has(tc.want), "wanted %q in\n%s", tc.want, r)
			require.NotEmpty(t, r.Violations[0].Ops)
		})
	}
}

func TestAViolationQuotesTheWatch(t *testing.T) {
	h := number(threeWrites())
	h.Watches = []Watch{watch(10, created(0, 1), events(4, 20, changed(a1, a2)))}
	require.Contains(t, Check(h, Options{}).String(), `lost event: the put of "a" at 10 was not given, but later ones or progress were
    #0 client 1 [0.000000s, 0.001000s] put "a"="1" -> revision 10
    watch #0 client 0 at  [0.000000s] of range ["a", ∞) from 10, prev_kv
    [0.004000s] revision 20 {put "a"="2" mod=20 create=10 version=2 was "a"="1" mod=10 create=10 version=1}`)
}
