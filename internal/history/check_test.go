package history

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCorrectHistoriesAreClean(t *testing.T) {
	for name, ops := range map[string][]Op{
		"one writer, gaps between revisions": {
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "a", "2", 700),
			get(2, 4, 5, "a", 700, kv("a", "2", 10, 700, 2)),
		},
		"the header of a read speaks of the shard, not of the key": {
			put(1, 0, 1, "a", "1", 10), get(2, 4, 5, "a", 999, kv("a", "1", 10, 10, 1)),
		},
		"a read concurrent with a write sees either": {
			put(1, 0, 1, "a", "1", 10), put(1, 2, 9, "a", "2", 20),
			get(2, 3, 4, "a", 10, kv("a", "1", 10, 10, 1)), get(3, 5, 6, "a", 20, kv("a", "2", 10, 20, 2)),
		},
		"deleted and created anew": {
			put(1, 0, 1, "a", "1", 10), del(1, 2, 3, "a", 20), get(1, 4, 5, "a", 20),
			put(1, 6, 7, "a", "2", 30), get(1, 8, 9, "a", 30, kv("a", "2", 30, 30, 1)),
		},
		"an unknown put that was seen later": {
			lostTrack(1, 0, 5, Put("a", "1")), get(2, 6, 7, "a", 1),
			get(2, 8, 9, "a", 10, kv("a", "1", 10, 10, 1)),
		},
		"an unknown put that never happened": {
			lostTrack(1, 0, 5, Put("a", "1")), get(2, 6, 7, "a", 1), put(2, 8, 9, "a", "2", 10),
			get(2, 10, 11, "a", 10, kv("a", "2", 10, 10, 1)),
		},
		"an unknown put nobody saw, but the version counts it": {
			lostTrack(1, 0, 5, Put("a", "1")), put(2, 8, 9, "a", "2", 10),
			get(2, 10, 11, "a", 10, kv("a", "2", 7, 10, 2)),
		},
		"an unknown delete that took effect": {
			put(1, 0, 1, "a", "1", 10), lostTrack(1, 2, 5, Delete("a")), get(2, 6, 7, "a", 12),
			getAt(2, 8, 9, "a", 12),
		},
		"an unknown delete between two lives": {
			put(1, 0, 1, "a", "1", 10), lostTrack(1, 2, 5, Delete("a")), put(2, 6, 7, "a", "2", 20),
			get(2, 8, 9, "a", 20, kv("a", "2", 20, 20, 1)),
		},
		"compare and swap, one wins and one loses": {
			put(1, 0, 1, "a", "1", 10), did(1, 2, 6, cas("a", 10, "2"), won(20)),
			did(2, 2, 6, cas("a", 10, "3"), Response{Revision: 20, Results: []Result{{KV: kv("a", "2", 10, 20, 2)}}}),
		},
		"an unknown compare and swap made another fail": {
			put(1, 0, 1, "a", "1", 10), lostTrack(1, 2, 3, cas("a", 10, "2")),
			did(2, 4, 5, cas("a", 10, "3"), Response{Revision: 20, Results: []Result{{KV: kv("a", "2", 10, 20, 2)}}}),
		},
		"a group has one revision": {
			did(1, 0, 1, both("g1", "g2", "1"), wonBoth(10)),
			all(2, 2, 3, 10, kv("g1", "1", 10, 10, 1), kv("g2", "1", 10, 10, 1)),
		},
		"a range over shards is a cut, and one of its shards reports less later": {
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "m", "2", 20),
			all(2, 4, 5, 20, kv("a", "1", 10, 10, 1), kv("m", "2", 20, 20, 1)),
			get(2, 6, 7, "a", 10, kv("a", "1", 10, 10, 1)), put(2, 8, 9, "a", "3", 21),
		},
		"two shards against real time, no read between": {
			put(1, 0, 1, "a", "1", 20), put(2, 2, 3, "m", "2", 10),
		},
		"reads of the past": {
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "a", "2", 20), del(1, 4, 5, "a", 30),
			getAt(2, 6, 7, "a", 9), getAt(2, 6, 7, "a", 10, kv("a", "1", 10, 10, 1)),
			getAt(2, 6, 7, "a", 29, kv("a", "2", 10, 20, 2)), getAt(2, 6, 7, "a", 30),
		},
		"refused and not applied": {
			refused(1, 0, 1, Put("a", "1"), "too many requests"), get(1, 2, 3, "a", 1),
		},
		"still running at the end": {
			put(1, 0, 1, "a", "1", 10), lostTrack(2, 0, 99, Put("a", "2")), get(1, 2, 3, "a", 10, kv("a", "1", 10, 10, 1)),
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := Check(number(ops), Options{Seed: 1})
			require.True(t, r.Clean(), r.String())
		})
	}
}

func TestAnomaliesAreFound(t *testing.T) {
	for name, tc := range map[string]struct {
		want []Anomaly
		ops  []Op
	}{
		"an acknowledged put is gone at the end": {[]Anomaly{LostWrite}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "a", "2", 20),
			final(get(0, 9, 10, "a", 25, kv("a", "1", 10, 10, 1))),
		}},
		"an acknowledged put is gone, and with it its revision": {[]Anomaly{LostWrite}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "a", "2", 20),
			final(get(0, 9, 10, "a", 10, kv("a", "1", 10, 10, 1))),
		}},
		"an acknowledged delete is undone": {[]Anomaly{LostWrite}, []Op{
			put(1, 0, 1, "a", "1", 10), del(1, 2, 3, "a", 20),
			final(get(0, 9, 10, "a", 30, kv("a", "1", 10, 10, 1))),
		}},
		"an overwritten put is missing from the past": {[]Anomaly{LostWrite}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "a", "2", 20), put(1, 4, 5, "a", "3", 30),
			final(getAt(0, 9, 10, "a", 20, kv("a", "1", 10, 10, 1))),
		}},
		"a read misses a completed write": {[]Anomaly{StaleRead, NotLinearizable}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "a", "2", 20),
			get(2, 4, 5, "a", 10, kv("a", "1", 10, 10, 1)), get(2, 6, 7, "a", 20, kv("a", "2", 10, 20, 2)),
		}},
		"a read goes back behind another": {[]Anomaly{NotLinearizable}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 2, 20, "a", "2", 20),
			get(2, 4, 5, "a", 20, kv("a", "2", 10, 20, 2)), get(3, 6, 7, "a", 10, kv("a", "1", 10, 10, 1)),
		}},
		"a compare succeeds on what was overwritten": {[]Anomaly{NotLinearizable}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "a", "2", 20), did(2, 4, 5, cas("a", 10, "3"), won(30)),
		}},
		"half of a transaction": {[]Anomaly{NotLinearizable, TornCut}, []Op{
			did(1, 0, 9, both("g1", "g2", "1"), wonBoth(10)),
			all(2, 2, 3, 10, kv("g1", "1", 10, 10, 1)),
		}},
		"a put counted twice": {[]Anomaly{DoubleApply, NotLinearizable}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "a", "2", 30), get(1, 4, 5, "a", 30, kv("a", "2", 10, 30, 3)),
		}},
		"an unknown put counted twice": {[]Anomaly{DoubleApply, NotLinearizable}, []Op{
			put(1, 0, 1, "a", "1", 10), lostTrack(1, 2, 3, Put("a", "2")), get(1, 4, 5, "a", 30, kv("a", "2", 10, 30, 3)),
		}},
		"one put at two revisions": {[]Anomaly{TwoRevisions}, []Op{
			put(1, 0, 1, "a", "1", 10), get(2, 2, 3, "a", 20, kv("a", "1", 10, 20, 2)),
		}},
		"an unknown put at two revisions": {[]Anomaly{TwoRevisions}, []Op{
			lostTrack(1, 0, 1, Put("a", "1")), get(2, 2, 3, "a", 10, kv("a", "1", 10, 10, 1)),
			get(3, 4, 5, "a", 11, kv("a", "1", 11, 11, 1)),
		}},
		"a cut misses a write below it": {[]Anomaly{TornCut}, []Op{
			put(1, 0, 9, "a", "1", 10), put(1, 0, 1, "m", "2", 20),
			all(2, 2, 3, 20, kv("m", "2", 20, 20, 1)),
		}},
		"a write slips below a cut that was already read": {[]Anomaly{TornCut, RevisionRegression, NotLinearizable}, []Op{
			put(1, 0, 1, "m", "2", 20), all(2, 2, 3, 20, kv("m", "2", 20, 20, 1)), put(1, 4, 5, "a", "1", 10),
		}},
		"an explicit revision shows less than it held": {[]Anomaly{TornCut}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "m", "2", 20), getAt(2, 4, 5, "a", 15),
		}},
		"a cut misses a completed write above it": {[]Anomaly{StaleRead}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "m", "2", 20), all(2, 4, 5, 10, kv("a", "1", 10, 10, 1)),
		}},
		"a deleted key is still in a cut": {[]Anomaly{StaleRead, NotLinearizable}, []Op{
			put(1, 0, 1, "a", "1", 10), del(1, 2, 3, "a", 20), all(2, 4, 5, 20, kv("a", "1", 10, 10, 1)),
		}},
		"a cut shows the future": {[]Anomaly{FutureWrite}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "m", "2", 20),
			all(2, 2, 3, 15, kv("a", "1", 10, 10, 1), kv("m", "2", 20, 20, 1)),
		}},
		"an explicit revision shows the future": {[]Anomaly{FutureWrite}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "a", "2", 20), getAt(2, 4, 5, "a", 15, kv("a", "2", 10, 20, 2)),
		}},
		"two transactions share a revision": {[]Anomaly{DuplicateRevision}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "m", "2", 10),
		}},
		"a key's revisions run backwards": {[]Anomaly{RevisionRegression, NotLinearizable}, []Op{
			put(1, 0, 1, "a", "1", 20), put(1, 2, 3, "a", "2", 10),
		}},
		"a client sees a header run backwards": {[]Anomaly{RevisionRegression}, []Op{
			get(1, 0, 1, "a", 20), get(1, 2, 3, "a", 10),
		}},
		"a range reports less than a narrower one": {[]Anomaly{RevisionRegression}, []Op{
			did(1, 0, 1, Range("a", "c", 0), Response{Revision: 20}), all(1, 2, 3, 10), get(1, 4, 5, "a", 20),
		}},
		"a write is not above what was read": {[]Anomaly{RevisionRegression}, []Op{
			get(1, 0, 1, "a", 20), put(1, 2, 3, "a", "1", 20),
		}},
		"a named revision is called future": {[]Anomaly{FutureRefused}, []Op{
			put(1, 0, 1, "a", "1", 10), refused(2, 2, 3, Get("a", 10), "etcdserver: mvcc: required revision is a future revision"),
		}},
		"a refused write shows up": {[]Anomaly{RefusedWriteApplied}, []Op{
			refused(1, 0, 1, Put("a", "1"), "too many requests"), get(1, 2, 3, "a", 10, kv("a", "1", 10, 10, 1)),
		}},
		"a value nobody wrote": {[]Anomaly{ValueFromNowhere}, []Op{
			get(1, 2, 3, "a", 10, kv("a", "1", 10, 10, 1)),
		}},
		"a value of the branch not taken": {[]Anomaly{ValueFromNowhere}, []Op{
			did(1, 0, 1, cas("a", 7, "1"), Response{Revision: 5, Results: make([]Result, 1)}),
			get(1, 2, 3, "a", 10, kv("a", "1", 10, 10, 1)),
		}},
		"replicas disagree about a version": {[]Anomaly{ChangedPast}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "a", "2", 20),
			get(2, 4, 5, "a", 20, kv("a", "2", 10, 20, 2)), get(3, 4, 5, "a", 20, kv("a", "2", 20, 20, 1)),
		}},
		"a version forgets a put": {[]Anomaly{VersionMismatch}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "a", "2", 20), put(1, 4, 5, "a", "3", 30),
			get(2, 6, 7, "a", 30, kv("a", "3", 10, 30, 2)),
		}},
		"a life goes on through a delete": {[]Anomaly{VersionMismatch, NotLinearizable}, []Op{
			put(1, 0, 1, "a", "1", 10), del(1, 2, 3, "a", 20), put(1, 4, 5, "a", "2", 30),
			get(2, 6, 7, "a", 30, kv("a", "2", 10, 30, 2)),
		}},
		"born again without a delete": {[]Anomaly{VersionMismatch, NotLinearizable}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 4, 5, "a", "2", 30), get(2, 6, 7, "a", 30, kv("a", "2", 30, 30, 1)),
		}},
		"keys outside of the span": {[]Anomaly{MalformedResponse}, []Op{
			put(1, 0, 1, "a", "1", 10), get(1, 2, 3, "b", 10, kv("a", "1", 10, 10, 1)),
		}},
		"the harness writes a value twice": {[]Anomaly{UnusableHistory}, []Op{
			put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "a", "1", 20),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := Check(number(tc.ops), Options{Seed: 7})
			for _, want := range tc.want {
				require.True(t, r.Has(want), "wanted %q in\n%s", want, r)
			}
			require.Contains(t, r.String(), "seed 7")
			require.NotEmpty(t, r.Violations[0].Ops)
		})
	}
}

func TestKnownShardsSharpenTheOrderOfHeaders(t *testing.T) {
	ops := number([]Op{put(1, 0, 1, "a", "1", 20), get(1, 2, 3, "b", 10)})
	require.True(t, Check(ops, Options{}).Clean())
	together := Options{ShardOf: func(string) string { return "the only one" }}
	require.True(t, Check(ops, together).Has(RevisionRegression))
}

func TestAViolationQuotesItsOperations(t *testing.T) {
	r := Check(number([]Op{
		put(1, 0, 1, "a", "1", 10), put(1, 2, 3, "a", "2", 20),
		final(get(0, 9, 10, "a", 20, kv("a", "1", 10, 10, 1))),
	}), Options{Seed: 42})
	require.Contains(t, r.String(), `lost write: a read at revision 20 shows "a"="1" mod=10 create=10 version=1, but the write at 20 belongs to it
    #1 client 1 [0.002000s, 0.003000s] put "a"="2" -> revision 20
    #2 client 0 [0.009000s, 0.010000s] get "a" -> revision 20 {"a"="1" mod=10 create=10 version=1}`)
}

func TestRecorderKeepsWhatNeverReturnedAsUnknown(t *testing.T) {
	var clock time.Duration
	rec := NewRecorder(func() time.Duration { clock += time.Millisecond; return clock })
	first := rec.Invoke(1, Put("a", "1"))
	second := rec.Invoke(2, Put("a", "2"))
	third := rec.Invoke(3, Get("a", 0))
	first.OK(won(10))
	third.Unknown(errors.New("deadline exceeded"))

	ops := rec.History().Ops
	require.Equal(t, []Outcome{OK, Unknown, Unknown}, []Outcome{ops[0].Outcome, ops[1].Outcome, ops[2].Outcome})
	require.Greater(t, ops[1].Return, ops[2].Return)

	second.Refused(errors.New("no"))
	require.Equal(t, Refused, rec.History().Ops[1].Outcome)
}
