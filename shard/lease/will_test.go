package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// L9: a lease goes on with what it had left, whatever time passed between the reigns; what
// was over stays over; of what the will does not speak gets all of its time.
func TestAReignInheritsWhatIsLeft(t *testing.T) {
	now := start()
	records := []*Record{
		{ID: 1, TTL: 10, Incarnation: 5}, {ID: 2, TTL: 20, Incarnation: 6}, {ID: 3, TTL: 1, Incarnation: 7, Revoking: true},
		{ID: 4, TTL: 2, Incarnation: 8}, {ID: 5, TTL: 3, Incarnation: 9}, {ID: 6, TTL: 60, Incarnation: 10},
	}
	l := Reign(4, records, nil, now, 0)
	now = now.Add(seconds(4))
	require.True(t, l.Renew(2, now))
	require.Equal(t, []int64{3, 4}, names(l.Due(now, 2)), "one more is over, and not found to be")
	now = now.Add(500*time.Millisecond + 100*time.Microsecond)
	will := l.Will(now)
	require.Equal(t, uint64(4), will.Reign)

	now = now.Add(time.Hour)
	records[5] = &Record{ID: 6, TTL: 60, Incarnation: 11} // granted since
	records = append(records, &Record{ID: 7, TTL: 30, Incarnation: 12})
	next := Reign(5, records, will, now, seconds(1))
	for id, want := range map[int64]time.Duration{1: 5500 * time.Millisecond, 2: 19500 * time.Millisecond, 6: 61 * time.Second, 7: 31 * time.Second} {
		left, ok := next.Remaining(id, now)
		require.True(t, ok, id)
		require.Equal(t, want, left, "lease %d: rounded up, never down", id)
	}
	require.False(t, next.Renew(4, now), "it was found to be over")
	require.False(t, next.Renew(5, now), "it was over")
	require.ElementsMatch(t, []int64{4, 5}, names(next.Due(now, 9)), "and is ended at once")
	require.Equal(t, []int64{1, 2, 7, 6}, names(next.Due(now.Add(time.Minute+seconds(1)), 9))[3:])
}

// A will never gives a lease more than it would get without one.
func TestAWillOnlyShortens(t *testing.T) {
	now := start()
	will := &shardpb.LeaseWill{Format: 1, Reign: 1, Newest: 9, Leases: []int64{1, 2, 9}, LeftMs: []uint64{1 << 63, 12_000, 5}}
	l := Reign(2, []*Record{{ID: 1, TTL: 10, Incarnation: 1}, {ID: 2, TTL: 10, Incarnation: 2}}, will, now, time.Second)
	for id := range int64(2) {
		left, _ := l.Remaining(id+1, now)
		require.Equal(t, seconds(11), left)
	}
}

// Of too many leases a will names those that were renewed longest ago.
func TestAWillIsBounded(t *testing.T) {
	now := start()
	l := Reign(1, nil, nil, now, 0)
	for id := range int64(willMax + 100) {
		l.Changed(id+1, &Record{ID: id + 1, TTL: 10 + id%7, Incarnation: id + 1}, now)
	}
	now = now.Add(seconds(1))
	renewed := map[int64]bool{}
	for id := int64(1); len(renewed) < 100; id += 1000 {
		renewed[id] = l.Renew(id, now)
	}
	will := l.Will(now)
	require.Len(t, will.Leases, willMax)
	for _, id := range will.Leases {
		require.False(t, renewed[id])
	}
	require.Equal(t, int64(willMax+100), will.Newest)
	require.Less(t, will.SizeVT(), 3<<19)
}

func bequeathed(reign uint64) *shardpb.LeaseWill {
	return &shardpb.LeaseWill{Format: 1, Reign: reign, Newest: 9, Leases: []int64{7}, LeftMs: []uint64{1500}}
}

// A will counts in the next reign, once, and not in one after that.
func TestAWillIsForTheNextReign(t *testing.T) {
	table, err := NewTable(nil)
	require.NoError(t, err)
	u := table.Update()
	require.False(t, u.Bequeath(bequeathed(1)), "there was no such reign")
	u.BeginReign()
	require.True(t, u.Bequeath(bequeathed(1)), "in one Update")
	_, will := u.BeginReign()
	require.NotNil(t, will)
	require.Nil(t, u.Shared().Will)
	require.Zero(t, u.Changes().Will.Reign)
	require.False(t, u.Bequeath(bequeathed(1)), "another reign has begun")
	require.True(t, u.Bequeath(bequeathed(2)))
	u.Commit()

	u = table.Update()
	reign, will := u.BeginReign()
	require.Equal(t, uint64(3), reign)
	require.Equal(t, uint64(2), will.GetReign())
	require.NotNil(t, table.State().Will, "L5")
	u.Commit()
	require.Nil(t, table.State().Will)
	u = table.Update()
	_, will = u.BeginReign()
	require.Nil(t, will)
}

// A reign that nobody measured leases in leaves what was left to it.
func TestASkippedReignPassesTheWillOn(t *testing.T) {
	table, err := NewTable(&shardpb.LeaseState{
		Book: &shardpb.LeaseBook{Format: 1, Reign: 4}, Will: bequeathed(4),
		Records: []*shardpb.LeaseRecord{{Format: 1, Lease: 7, Ttl: 10, Incarnation: 8}},
	})
	require.NoError(t, err)
	u := table.Update()
	u.SkipReign()
	u.Commit()
	u = table.Update()
	reign, will := u.BeginReign()
	require.Equal(t, uint64(6), reign)
	require.Equal(t, uint64(5), will.GetReign())
	require.Equal(t, []int64{7}, will.Leases)

	u = table.Update()
	u.Drop(7)
	u.SkipReign()
	u.Commit()
	require.Nil(t, table.State().Will, "there is no such lease any more")
}

// What two shards have left goes on when they become one, for the leases that each of them
// had: the same lease may have been elsewhere meanwhile, and other incarnations compare with
// other ones.
func TestMergedWillsKeepTheirSides(t *testing.T) {
	record := func(id, incarnation int64) *shardpb.LeaseRecord {
		return &shardpb.LeaseRecord{Format: 1, Lease: id, Ttl: 10, Incarnation: incarnation}
	}
	left, err := NewTable(&shardpb.LeaseState{
		Book: &shardpb.LeaseBook{Format: 1, Reign: 4}, Records: []*shardpb.LeaseRecord{record(1, 5), record(2, 20)},
		Will: &shardpb.LeaseWill{Format: 1, Reign: 4, Newest: 10, Leases: []int64{1, 2, 3}, LeftMs: []uint64{100, 200, 300}},
	})
	require.NoError(t, err)
	u := left.Update()
	require.NoError(t, u.Absorb(&shardpb.LeaseState{
		Book: &shardpb.LeaseBook{Format: 1, Reign: 9}, Records: []*shardpb.LeaseRecord{record(3, 6), record(4, 30)},
		Will: &shardpb.LeaseWill{Format: 1, Reign: 9, Newest: 40, Leases: []int64{4, 1}, LeftMs: []uint64{400, 500}},
	}))
	u.Commit()
	require.Equal(t, &shardpb.LeaseWill{Format: 1, Reign: 10, Newest: 30, Leases: []int64{1, 4}, LeftMs: []uint64{100, 400}}, left.State().Will)
}
