package node

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/router/adminapi"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Replicas are judged by what a majority of those that vote holds. Of each replica a letter
// says what it has told: a, b, c are sums; "!" has data that cannot be read, "." nothing
// yet, "-" does not answer, "x" is unfit already. "+" behind it is a learner. What is found:
// = agrees, # differs, ! is damaged, ? unknown, x unfit.
func TestJudge(t *testing.T) {
	for told, want := range map[string]string{
		"a a a":     "agree = = =",
		"a a b":     "damaged = = #",
		"b a a":     "damaged # = =",
		"a a !":     "damaged = = !",
		"a a -":     "incomplete = = ?",
		"a a .":     "incomplete = = ?",
		"a a x":     "incomplete = = x",
		"a b -":     "disputed = # ?",
		"a b c":     "disputed = # #",
		"a ! -":     "incomplete = ! ?",
		"a ! !":     "disputed = ! !",
		"a - -":     "incomplete = ? ?",
		"- - -":     "incomplete ? ? ?",
		"a x b":     "disputed = x #",
		"a":         "agree =",
		"!":         "disputed !",
		"a b":       "disputed = #",
		"a a":       "agree = =",
		"a a a b+":  "damaged = = = #",
		"a a b a+":  "damaged = = # =",
		"a b a+ a+": "disputed = # = =", // who does not vote was not needed for what was acknowledged
		"a a a b b": "damaged = = = # #",
		"a a b b c": "disputed = = # # #",
		"a a - - b": "disputed = = ? ? #",
	} {
		t.Run(told, func(t *testing.T) {
			const index = 7
			d := &shard.Descriptor{ID: 3}
			var reports []report
			for i, word := range strings.Fields(told) {
				r := shard.Replica{ID: shard.ReplicaID(i + 1), Node: shard.NodeID(i + 1), Learner: strings.HasSuffix(word, "+")}
				d.Replicas = append(d.Replicas, r)
				p := &routerpb.ReplicaReport{Applied: index, Checksum: &routerpb.Checksum{Index: index, Done: true, Sum: uint64(word[0])}}
				switch word[0] {
				case '!':
					p.Checksum.Damage = "nonsense"
				case '.':
					p.Checksum.Index--
				case 'x':
					p.Unfit = "poisoned"
				case '-':
					continue
				}
				reports = append(reports, report{r, p})
			}
			got := judge(d, index, reports)
			words := []string{string(got.Verdict)}
			for _, r := range got.Replicas {
				words = append(words, map[adminapi.Result]string{
					adminapi.Agrees: "=", adminapi.Differs: "#", adminapi.Broken: "!", adminapi.Unknown: "?", adminapi.Unfit: "x",
				}[r.Result])
			}
			require.Equal(t, want, strings.Join(words, " "))
		})
	}
}

// A move of the meta group is no reason to compare anything: it could not be, and would be tried for ever.
func TestAComparisonIsOvertakenByALaterOne(t *testing.T) {
	told := func(index uint64) report {
		return report{ReplicaReport: &routerpb.ReplicaReport{Checksum: &routerpb.Checksum{Index: index}}}
	}
	none := report{ReplicaReport: &routerpb.ReplicaReport{}}
	require.False(t, overtaken(7, []report{none, told(3), told(7)}))
	require.True(t, overtaken(7, []report{none, told(8), told(7)}), "no replica computes two at a time, so it would be waited for in vain")
}

func TestTheMetaGroupIsNotCompared(t *testing.T) {
	n := &Node{cfg: Config{Registerer: prometheus.NewRegistry(), CorruptCheckTime: time.Hour}}
	c := newChecker(n)
	c.soon(7, shard.MetaID, 8, 7)
	require.Equal(t, []shard.ID{7, 8}, c.take())
}

// However often a damaged replica is read, its shard is compared once in a while: a comparison reads all of it on all nodes.
func TestSuspectsAreComparedOnceInAWhile(t *testing.T) {
	incomplete := &adminapi.Checked{Verdict: adminapi.Incomplete}
	agree := &adminapi.Checked{Verdict: adminapi.Agree}
	for name, tc := range map[string]struct {
		found *adminapi.Checked
		err   error
		pause time.Duration
	}{
		"no verdict": {found: incomplete, pause: suspectRetry},
		"no leader":  {err: errors.New("no leader"), pause: suspectRetry},
		"no fault":   {found: agree, pause: checkAgain},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newChecker(&Node{cfg: Config{Registerer: prometheus.NewRegistry()}, table: newTable(), log: slog.New(slog.DiscardHandler)})
				var looks []time.Duration
				began := time.Now()
				c.look = func(context.Context, shard.ID) (*adminapi.Checked, error) {
					looks = append(looks, time.Since(began))
					return tc.found, tc.err
				}
				ctx, stop := context.WithTimeout(t.Context(), tc.pause+tc.pause/2)
				defer stop()
				var work sync.WaitGroup
				work.Go(func() { c.investigate(ctx) })
				reads := time.NewTicker(100 * time.Millisecond)
				defer reads.Stop()
				for ctx.Err() == nil {
					c.suspect(7)
					select {
					case <-reads.C:
					case <-ctx.Done():
					}
				}
				work.Wait()
				require.Len(t, looks, 2)
				require.GreaterOrEqual(t, looks[1]-looks[0], tc.pause)
			})
		})
	}
}

// C2: what is found once and not again is not acted on.
func TestOneLookIsNotEnough(t *testing.T) {
	n := &Node{cfg: Config{Registerer: prometheus.NewRegistry()}, table: newTable(), log: slog.New(slog.DiscardHandler)}
	c := newChecker(n) // without a way to the placement table
	looks := 0
	c.look = func(context.Context, shard.ID) (*adminapi.Checked, error) {
		if looks++; looks == 1 {
			return &adminapi.Checked{Verdict: adminapi.Damaged, Replicas: []adminapi.CheckedReplica{{Result: adminapi.Differs}}}, nil
		}
		return &adminapi.Checked{Verdict: adminapi.Agree, Replicas: []adminapi.CheckedReplica{{Result: adminapi.Agrees}}}, nil
	}
	checked, err := c.check(t.Context(), 7)
	require.NoError(t, err)
	require.Equal(t, adminapi.Agree, checked.Verdict)
	require.Equal(t, 2, looks)
	_, err = c.check(t.Context(), 7)
	require.NoError(t, err)
	require.Equal(t, 3, looks, "one is enough where all agree")

	c.look = func(context.Context, shard.ID) (*adminapi.Checked, error) {
		looks++
		other := adminapi.CheckedReplica{Replica: shard.Replica{ID: shard.ReplicaID(looks)}, Result: adminapi.Differs}
		return &adminapi.Checked{Verdict: adminapi.Damaged, Replicas: []adminapi.CheckedReplica{other}}, nil
	}
	_, err = c.check(t.Context(), 7)
	require.ErrorContains(t, err, "replicas [4] were not as the others at first, then replicas [5]")
}
