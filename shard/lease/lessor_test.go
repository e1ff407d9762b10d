package lease

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var seed = flag.Uint64("seed", 0, "seed of the random tests; 0 draws one")

// start is a reading of the machine's clock, so with its monotonic part.
func start() time.Time { return time.Now() }

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

func names(due []Due) (ids []int64) {
	for _, d := range due {
		ids = append(ids, d.ID)
	}
	return ids
}

func TestReignGivesWholeTTLs(t *testing.T) {
	now := start()
	l := Reign(4, []*Record{{ID: 1, TTL: 10, Incarnation: 5}, {ID: 2, TTL: 20, Incarnation: 6}, {ID: 3, TTL: 1, Incarnation: 7, Revoking: true}}, nil, now, time.Second)
	left, ok := l.Remaining(1, now)
	require.True(t, ok)
	require.Equal(t, seconds(11), left)
	_, ok = l.Remaining(3, now)
	require.False(t, ok, "it is being revoked")
	require.Equal(t, []int64{1, 2}, l.Living(now))

	// What a renewal gives is less: the lease keeps the later deadline (L8).
	require.True(t, l.Renew(1, now))
	left, _ = l.Remaining(1, now)
	require.Equal(t, seconds(11), left)
	require.True(t, l.Renew(1, now.Add(seconds(5))))
	left, _ = l.Remaining(1, now.Add(seconds(5)))
	require.Equal(t, seconds(10), left)

	require.Equal(t, []Due{{ID: 3, Incarnation: 7, Reign: 4, Patience: takeOver}}, l.Due(now.Add(takeOver), 9), "a revocation that is left is taken up")
	require.Equal(t, []int64{3, 1}, names(l.Due(now.Add(seconds(15)), 9)))
}

// L7, and that nothing named is forgotten.
func TestDueIsNamedAgain(t *testing.T) {
	now := start()
	l := Reign(1, nil, nil, now, 0)
	l.Changed(1, &Record{ID: 1, TTL: 10, Incarnation: 5}, now)
	require.Empty(t, l.Due(now.Add(seconds(10)-1), 9))
	require.True(t, l.Renew(1, now.Add(seconds(10)-1)))
	now = now.Add(seconds(20))
	require.False(t, l.Renew(1, now), "it is over, named or not")
	require.Equal(t, []int64{1}, names(l.Due(now, 9)))
	require.False(t, l.Renew(1, now))
	require.Empty(t, l.Due(now.Add(takeOver-1), 9))
	require.Equal(t, []int64{1}, names(l.Due(now.Add(takeOver), 9)))

	l.Changed(1, &Record{ID: 1, TTL: 10, Incarnation: 5, Revoking: true}, now)
	require.False(t, l.Renew(1, now))
	l.Changed(1, nil, now)
	require.Empty(t, l.Due(now.Add(time.Hour), 9))
	l.Changed(1, &Record{ID: 1, TTL: 3, Incarnation: 9}, now)
	require.True(t, l.Renew(1, now), "another lease of the same ID")
	l.Changed(1, &Record{ID: 1, TTL: 3, Incarnation: 12}, now)
	require.Equal(t, []Due{{ID: 1, Incarnation: 12, Reign: 1, Patience: takeOver}}, l.Due(now.Add(seconds(3)), 9))
}

// A revocation that does not come to an end gets more time when it is begun again.
func TestRevocationsGetMoreTimeEachTime(t *testing.T) {
	now := start()
	l := Reign(1, []*Record{{ID: 1, TTL: 10, Incarnation: 5}}, nil, now, 0)
	now = now.Add(seconds(10))
	for i, want := range []time.Duration{seconds(1), seconds(2), seconds(4), seconds(8), seconds(8), seconds(8)} {
		require.Equal(t, []Due{{ID: 1, Incarnation: 5, Reign: 1, Patience: want, Again: i > 0}}, l.Due(now, 9))
		require.Empty(t, l.Due(now.Add(want-1), 9))
		now = now.Add(want)
	}
}

// Attaching changes a record, and not how long the lease lives.
func TestOtherChangesKeepTheDeadline(t *testing.T) {
	now := start()
	l := Reign(1, nil, nil, now, 0)
	r := &Record{ID: 1, TTL: 10, Incarnation: 5}
	l.Changed(1, r, now)
	now = now.Add(seconds(4))
	l.Changed(1, r.Attach(span("a", "b")), now)
	left, ok := l.Remaining(1, now)
	require.True(t, ok)
	require.Equal(t, seconds(6), left)
}

// The longest TTL does not overflow: neither its deadline nor what is left of it.
func TestLongestTTL(t *testing.T) {
	const longest = 9_000_000_000
	now := start()
	l := Reign(1, []*Record{{ID: 1, TTL: longest, Incarnation: 1}}, nil, now, time.Minute)
	require.Empty(t, l.Due(now.Add(24*time.Hour), 9))
	require.True(t, l.Renew(1, now.Add(time.Hour)))
	left, ok := l.Remaining(1, now.Add(time.Hour))
	require.True(t, ok)
	require.Equal(t, seconds(longest), left)
}

// modelTerm is a lease's time, kept plainly.
type modelTerm struct {
	due   time.Time
	ttl   time.Duration
	ended bool
	named int
}

func (m *modelTerm) name(now time.Time) {
	m.ended, m.due = true, now.Add([]time.Duration{seconds(1), seconds(2), seconds(4), seconds(8)}[min(m.named, 3)])
	m.named++
}

// The lessor against a map of deadlines, with random grants, renewals and jumps of time.
func TestLessorFollowsModel(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with: go test ./shard/lease -run TestLessorFollowsModel -seed=%d", s)
	rng := rand.New(rand.NewPCG(s, 0))
	now := start()
	l := Reign(1, nil, nil, now, 0)
	model := map[int64]*modelTerm{}
	for range 20000 {
		id := 1 + rng.Int64N(20)
		m := model[id]
		switch rng.IntN(6) {
		case 0:
			if m == nil {
				ttl := 1 + rng.Int64N(9)
				l.Changed(id, &Record{ID: id, TTL: ttl, Incarnation: 1}, now)
				model[id] = &modelTerm{due: now.Add(seconds(ttl)), ttl: seconds(ttl)}
			}
		case 1:
			if rng.IntN(4) == 0 {
				l.Changed(id, nil, now)
				delete(model, id)
			}
		case 2, 3:
			alive := m != nil && !m.ended && now.Before(m.due)
			require.Equal(t, alive, l.Renew(id, now))
			if alive {
				m.due = now.Add(m.ttl)
			}
		case 4:
			now = now.Add(time.Duration(rng.Int64N(int64(time.Second))))
		default:
			before := time.Time{}
			for _, d := range l.Due(now, 1+rng.IntN(3)) {
				m := model[d.ID]
				require.NotNil(t, m)
				require.False(t, now.Before(m.due), "named too early")
				require.False(t, m.due.Before(before), "earliest first")
				before = m.due
				m.name(now)
			}
			if due := l.Due(now, 100); rng.IntN(2) == 0 {
				for _, d := range due {
					require.False(t, now.Before(model[d.ID].due))
					model[d.ID].name(now)
				}
				for id, m := range model {
					require.True(t, now.Before(m.due), "lease %d was not named", id)
				}
			} else {
				for _, d := range due {
					model[d.ID].name(now)
				}
			}
		}
		require.Len(t, l.queue, len(model))
	}
}
