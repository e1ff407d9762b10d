package lease

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

func span(start, end string) shard.Span {
	return shard.Span{Start: []byte(start), End: []byte(end)}
}

// L5: an Update sees itself; others see it whole and after Commit.
func TestUpdateIsSeenAfterCommit(t *testing.T) {
	table, err := NewTable(nil)
	require.NoError(t, err)
	u := table.Update()
	u.Set(&Record{ID: 7, TTL: 1, Incarnation: 3})
	u.Set(&Record{ID: 8, TTL: 1, Incarnation: 4})
	u.Register(7, 3)
	fence := u.Fence(9)
	u.Detach(9)
	require.Equal(t, fence+1, u.Fence(9), "L6")
	reign, _ := u.BeginReign()
	require.Equal(t, uint64(1), reign)
	require.Equal(t, uint64(1), u.Reign())
	require.Equal(t, int64(3), u.Registered(7))
	require.NotNil(t, u.Record(7))
	require.True(t, proto.Equal(&shardpb.LeaseState{}, table.State()))
	require.Nil(t, table.Record(7))
	require.Zero(t, table.Len())

	u.Commit()
	require.Equal(t, 2, table.Len())
	require.Equal(t, uint64(1), table.Reign())
	u = table.Update()
	require.Equal(t, fence+1, u.Fence(9))
	u.Drop(7)
	u.Detach(7)
	require.Nil(t, u.Record(7))
	require.Zero(t, u.Registered(7))
	require.NotNil(t, table.Record(7))
	c := u.Changes()
	require.Equal(t, []RecordChange{{ID: 7}}, c.Records)
	require.Len(t, c.Registrations, 1)
	require.Zero(t, c.Registrations[0].Incarnation)
	u.Commit()
	require.Equal(t, []*Record{{ID: 8, TTL: 1, Incarnation: 4}}, table.Records())
	require.Empty(t, table.State().Registrations)
}

func TestUpdateOfNothingChangesNothing(t *testing.T) {
	table, err := NewTable(nil)
	require.NoError(t, err)
	u := table.Update()
	require.Nil(t, u.Record(1))
	require.Zero(t, u.Registered(1))
	require.Zero(t, u.Fence(1))
	require.Equal(t, Changes{}, u.Changes())
	require.Zero(t, testing.AllocsPerRun(10, func() { u := table.Update(); u.Changes(); u.Commit() }))
}

func TestStateRoundTrip(t *testing.T) {
	state := &shardpb.LeaseState{
		Book: &shardpb.LeaseBook{Format: 1, Reign: 4, Fences: make([]uint64, Classes)},
		Records: []*shardpb.LeaseRecord{
			{Format: 1, Lease: -3, Ttl: 9, Incarnation: 5, Revoking: true},
			{Format: 1, Lease: 7, Ttl: 9, Incarnation: 5, Spans: []*shardpb.Span{{Start: []byte("a"), End: []byte("b")}, {Start: []byte("x")}}},
		},
		Registrations: []*shardpb.LeaseRegistration{{Lease: 1, Incarnation: 2}, {Lease: 2, Incarnation: 9}},
		Will:          &shardpb.LeaseWill{Format: 1, Reign: 4, Newest: 5, Leases: []int64{7, -3}, LeftMs: []uint64{9, 0}},
	}
	state.Book.Fences[3] = 8
	table, err := NewTable(state)
	require.NoError(t, err)
	require.True(t, proto.Equal(state, table.State()))

	for _, bad := range []*shardpb.LeaseState{
		{Book: &shardpb.LeaseBook{Format: 2}}, {Records: []*shardpb.LeaseRecord{{Lease: 1}}},
		{Book: &shardpb.LeaseBook{Format: 1, Fences: make([]uint64, Classes+1)}},
		{Book: &shardpb.LeaseBook{Format: 1, Reign: 4}, Will: &shardpb.LeaseWill{Format: 2, Reign: 4}},
		{Book: &shardpb.LeaseBook{Format: 1, Reign: 4}, Will: &shardpb.LeaseWill{Format: 1, Reign: 3}},
		{Book: &shardpb.LeaseBook{Format: 1, Reign: 4}, Will: &shardpb.LeaseWill{Format: 1, Reign: 4, Leases: []int64{1}}},
	} {
		_, err := NewTable(bad)
		require.Error(t, err)
	}
}

// The class of a lease is stored with the fences.
func TestClassesArePermanent(t *testing.T) {
	require.Equal(t, []int{0xe5, 20, 37}, []int{class(1), class(7), class(41)})
}

// A record's spans against a set of keys: disjoint, not adjacent, ascending, and exactly
// what was attached.
func TestAttachJoinsSpans(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	letter := func(i int) []byte { return []byte{'a' + byte(i)} }
	for range 2000 {
		r := &Record{ID: 1}
		var in [26]bool
		for range rng.IntN(6) {
			from := rng.IntN(25)
			to := from + 1 + rng.IntN(26-from)
			s := shard.Span{Start: letter(from), End: letter(to)}
			if to == 26 {
				s.End = nil
			}
			if from == 0 {
				s.Start = nil
			}
			before := r
			kept := append([]shard.Span(nil), before.Spans...)
			r = r.Attach(s)
			require.Equal(t, kept, append([]shard.Span(nil), before.Spans...), "a record is a value")
			for i := from; i < to; i++ {
				in[i] = true
			}
		}
		runs := 0
		for i := range in {
			covered := 0
			for _, s := range r.Spans {
				if s.Contains(letter(i)) {
					covered++
				}
			}
			require.Equal(t, in[i], covered == 1, "%v at %c", r.Spans, 'a'+i)
			if in[i] && (i == 0 || !in[i-1]) {
				runs++
			}
		}
		require.Len(t, r.Spans, runs)
		require.Equal(t, !in[0] && !in[25], r.Within(span("b", "z")))
	}
}
