package robustness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/internal/history"
)

func planOf(n Nemesis, seed uint64) []Attack {
	return n.Plan(rand.New(rand.NewPCG(seed, 0)), 5, []string{"a", "b"}, time.Minute)
}

func TestThePlanNeverAsksForMoreThanAllowed(t *testing.T) {
	for maxDown := 1; maxDown <= 2; maxDown++ {
		for seed := range uint64(50) {
			n := DefaultNemesis()
			n = n.Reshaping()
			n.MaxDown = maxDown
			plan := planOf(n, seed)
			require.NotEmpty(t, plan)
			for _, a := range plan {
				require.LessOrEqual(t, a.At+a.Lasts, time.Minute)
				down := 0
				for _, b := range plan {
					if b.Fault.stops() && b.At <= a.At && a.At < b.At+b.Lasts {
						down++
					}
				}
				require.LessOrEqual(t, down, maxDown)
			}
		}
	}
}

func TestAKilledClusterIsNotAttackedFurther(t *testing.T) {
	n := DefaultNemesis()
	n.MaxDown, n.Weights[KillAll] = 2, 2
	for seed := range uint64(50) {
		plan := planOf(n, seed)
		for i, a := range plan {
			for _, b := range plan[i+1:] {
				require.False(t, a.collides(b), "%s and %s", a, b)
			}
		}
	}
}

func TestShardsAreChangedWhileNodesAreDown(t *testing.T) {
	met := make(map[Fault]int)
	for seed := range uint64(50) {
		plan := planOf(DefaultNemesis().Reshaping(), seed)
		for _, change := range plan {
			for _, stop := range plan {
				if !change.Fault.stops() && stop.Fault.stops() && stop.At < change.At && change.At < stop.At+stop.Lasts {
					met[change.Fault]++
				}
			}
		}
	}
	require.Len(t, met, 5)
	require.Empty(t, DefaultNemesis().Weights[Split], "what is added to is a copy")
}

func TestTheSeedDecidesThePlan(t *testing.T) {
	require.Equal(t, planOf(DefaultNemesis(), 7), planOf(DefaultNemesis(), 7))
	require.NotEqual(t, planOf(DefaultNemesis(), 7), planOf(DefaultNemesis(), 8))
	require.Empty(t, planOf(Nemesis{}, 7))
}

func TestTheSeedDecidesTheRequests(t *testing.T) {
	requests := func(client int, seed int64) []string {
		g := newGenerator(client, seed, DefaultWorkload())
		var out []string
		for i := range 200 {
			req := g.next()
			out = append(out, req.String())
			if req.Read != nil {
				g.observe(req, history.Response{Revision: int64(i + 1)})
			}
		}
		return out
	}
	require.Equal(t, requests(1, 7), requests(1, 7))
	require.NotEqual(t, requests(1, 7), requests(1, 8))
	require.NotEqual(t, requests(1, 7), requests(2, 7))
}

func TestKeysCoverAllShardsAndGroupsStayTogether(t *testing.T) {
	ks := DefaultWorkload().Keys
	shards := make(map[string]bool)
	for _, k := range ks.Singles {
		shards[ShardOf(k)] = true
	}
	require.Len(t, shards, ShardCount)
	for _, g := range ks.Groups {
		require.Len(t, g, keysPerGroup)
		for _, k := range g {
			require.Equal(t, ShardOf(g[0]), ShardOf(k))
		}
	}
	for _, g := range ks.Groups {
		require.Contains(t, ks.Cuts(), g[0][:len(g[0])-2], "a group is cut before its first key")
		require.NotContains(t, ks.Cuts(), g[1])
	}
	require.Len(t, ks.All(), len(ks.Singles)+keysPerGroup*len(ks.Groups)+len(ks.Leased))
}

func TestReadBackWalksTheWholePast(t *testing.T) {
	// One key: put at 10 and 20, deleted at 30, put at 40, 50 and 60. The requests at 20
	// and 50 are of unknown outcome: nobody was told these revisions.
	at := func(rev int64) []history.KV {
		switch {
		case rev < 10 || rev >= 30 && rev < 40:
			return nil
		case rev < 30:
			return []history.KV{{Create: 10, Mod: rev / 10 * 10, Version: rev / 10}}
		default:
			mod := min(60, rev/10*10)
			return []history.KV{{Create: 40, Mod: mod, Version: mod/10 - 3}}
		}
	}
	var seen []int64
	for next, known := below(1000, []int64{10, 30, 40, 60}); next > 0; {
		seen = append(seen, next)
		next, known = stepBack(next, at(next), known)
	}
	require.Equal(t, []int64{60, 59, 49, 30, 29, 19}, seen)
}

func TestOnlyCertainErrorsAreRefusals(t *testing.T) {
	for _, err := range []error{
		rpctypes.ErrTooManyRequests, rpctypes.ErrNoSpace, rpctypes.ErrFutureRev, rpctypes.ErrCompacted,
		rpctypes.ErrDuplicateKey, status.Error(codes.FailedPrecondition, "the keys lie in two shards"),
	} {
		require.True(t, certain(err), err)
	}
	for _, err := range []error{
		context.DeadlineExceeded, rpctypes.ErrTimeout, rpctypes.ErrLeaderChanged, rpctypes.ErrNoLeader,
		status.Error(codes.Unavailable, "connection refused"), errors.New("anything else"),
		status.Error(codes.ResourceExhausted, "grpc: received message larger than max"),
	} {
		require.False(t, certain(err), err)
	}
}

// logSystem notes what is done to it.
type logSystem struct {
	System
	began time.Time
	log   []string
}

func (s *logSystem) note(what string, node int) error {
	s.log = append(s.log, fmt.Sprintf("%s %s %d", time.Since(s.began), what, node))
	return nil
}

func (s *logSystem) Kill(node int) error   { return s.note("kill", node) }
func (s *logSystem) Start(node int) error  { return s.note("start", node) }
func (s *logSystem) Pause(node int) error  { return s.note("pause", node) }
func (s *logSystem) Resume(node int) error { return s.note("resume", node) }

func TestAttacksThatHaveBegunAreEndedWhenTheRunIsCutShort(t *testing.T) {
	plan := []Attack{
		{Fault: Kill, At: time.Second, Lasts: time.Second, Node: 0},
		{Fault: Pause, At: 3 * time.Second, Lasts: time.Hour, Node: 1},
		{Fault: Kill, At: 5 * time.Second, Lasts: time.Second, Node: 2},
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		sys := &logSystem{began: time.Now()}
		_, err := execute(ctx, sys, plan)
		require.NoError(t, err)
		require.Equal(t, []string{"1s kill 0", "2s start 0", "3s pause 1", "4s resume 1"}, sys.log)
	})
}

func TestTheWidestGapIsFound(t *testing.T) {
	require.Equal(t, 5*time.Second, widestGap([]time.Duration{9 * time.Second, time.Second, 4 * time.Second}))
	require.Zero(t, widestGap(nil))
}
