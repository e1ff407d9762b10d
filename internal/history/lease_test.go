package history

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// final watches are what the ends of leases are known from.
func finally(responses ...WatchResponse) Watch {
	w := watch(1, responses...)
	w.Final = true
	return w
}

func times(list ...int) []time.Duration {
	var out []time.Duration
	for _, at := range list {
		out = append(out, ms(at))
	}
	return out
}

var ( // nothing changes these
	ka = leasedKV("a", "1", 10, 10, 1, 7)
	km = leasedKV("m", "1", 11, 11, 1, 7)
)

func attached() []Op {
	return []Op{attach(1, 2, 3, "a", "1", 7, 10), attach(1, 4, 5, "m", "1", 7, 11)}
}

func TestCorrectLeasesAreClean(t *testing.T) {
	for name, h := range map[string]History{
		"expired after its time, in two shards": {
			attached(), []Watch{finally(created(0, 1), events(6, 11, born(ka), born(km)), events(150, 20, gone(ka, 20)), events(151, 21, gone(km, 21)))},
			[]LeaseOp{granted(0, 1, 100), renewed(40, 50, 100), missing(Ask, 200, 201)},
		},
		"revoked before its time": {
			append(attached(), get(2, 9, 10, "a", 20)), []Watch{finally(created(0, 1), events(6, 11, born(ka), born(km)), events(8, 20, gone(ka, 20), gone(km, 20)))},
			[]LeaseOp{granted(0, 1, 100), revoked(6, 9)},
		},
		"a revocation of unknown outcome": {
			attached(), []Watch{finally(created(0, 1), events(6, 11, born(ka), born(km)), events(8, 20, gone(ka, 20), gone(km, 20)))},
			[]LeaseOp{granted(0, 1, 100), {Kind: Revoke, Lease: 7, Call: ms(6), Return: ms(9)}, missing(Revoke, 10, 11)},
		},
		"a key that was detached lives on": {
			[]Op{attach(1, 2, 3, "a", "1", 7, 10), put(1, 4, 5, "a", "2", 12), get(1, 20, 21, "a", 12, a2at12())},
			[]Watch{finally(created(0, 1), events(6, 12, born(ka), changed(ka, a2at12())))}, []LeaseOp{granted(0, 1, 100), revoked(6, 9)},
		},
		"a key that went to another lease is deleted with that": {
			[]Op{attach(1, 2, 3, "a", "1", 8, 10), attach(1, 4, 5, "a", "2", 7, 12), get(1, 20, 21, "a", 30)},
			[]Watch{finally(created(0, 1), events(6, 12, born(on8()), changed(on8(), on7())), events(18, 30, gone(on7(), 30)))},
			[]LeaseOp{granted(0, 1, 100), revoked(15, 19)},
		},
		"a racing put is deleted": {
			[]Op{attach(1, 6, 10, "a", "1", 7, 10), get(1, 20, 21, "a", 11)},
			[]Watch{finally(created(0, 1), events(11, 11, born(ka), gone(ka, 11)))}, []LeaseOp{granted(0, 1, 100), revoked(5, 12)},
		},
		"a racing put is refused": {
			[]Op{refused(1, 6, 10, Attach("a", "1", 7), notFound), get(1, 20, 21, "a", 1)},
			[]Watch{finally(created(0, 1))}, []LeaseOp{granted(0, 1, 100), revoked(5, 12)},
		},
		"a revocation comes to one shard after the other": {
			append(attached(), attach(1, 12, 13, "m", "2", 7, 21), get(1, 40, 41, "m", 30)),
			[]Watch{finally(created(0, 1), events(6, 11, born(ka), born(km)), events(10, 20, gone(ka, 20)), events(14, 21, changed(km, km2())), events(20, 22, gone(km2(), 22)))},
			[]LeaseOp{granted(0, 1, 100), {Kind: Revoke, Lease: 7, Call: ms(8), Return: ms(18)}},
		},
		"a renewal that nobody acknowledged promises nothing": {
			attached(), []Watch{finally(created(0, 1), events(6, 11, born(ka), born(km)), events(110, 20, gone(ka, 20), gone(km, 20)))},
			[]LeaseOp{granted(0, 1, 100), {Kind: Renew, Lease: 7, Call: ms(50), Return: ms(60)}},
		},
		"without a watch of everything nothing is known of the end": {
			append(attached(), get(2, 200, 201, "a", 20)), nil, []LeaseOp{granted(0, 1, 100)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			number(h.Ops)
			r := Check(h, Options{})
			require.True(t, r.Clean(), r.String())
		})
	}
}

const notFound = "etcdserver: requested lease not found"

func a2at12() KV { return kv("a", "2", 10, 12, 2) }
func km2() KV    { return leasedKV("m", "2", 11, 21, 2, 7) }
func on8() KV    { return leasedKV("a", "1", 10, 10, 1, 8) }
func on7() KV    { return leasedKV("a", "2", 10, 12, 2, 7) }

func TestAnomaliesOfLeasesAreFound(t *testing.T) {
	for name, tc := range map[string]struct {
		want Anomaly
		History
	}{
		"a key is deleted too early": {EarlyExpiry, History{
			attached(), []Watch{finally(created(0, 1), events(6, 11, born(ka), born(km)), events(130, 20, gone(ka, 20), gone(km, 20)))},
			[]LeaseOp{granted(0, 1, 100), renewed(40, 50, 100)},
		}},
		"a lease is not found too early": {EarlyExpiry, History{Leases: []LeaseOp{granted(0, 1, 100), renewed(40, 50, 100), missing(Renew, 120, 130)}}},
		"a put is refused too early": {EarlyExpiry, History{
			Ops: []Op{refused(1, 60, 70, Attach("a", "1", 7), notFound)}, Leases: []LeaseOp{granted(0, 1, 100)},
		}},
		"only one of two shards deletes": {DeadLeaseKey, History{
			append(attached(), final(all(2, 20, 21, 20, km))), []Watch{finally(created(0, 1), events(6, 11, born(ka), born(km)), events(9, 20, gone(ka, 20)), progress(30, 22))},
			[]LeaseOp{granted(0, 1, 100), revoked(6, 10)},
		}},
		"a key survives an expiry": {DeadLeaseKey, History{
			append(attached()[:1], final(all(2, 210, 211, 10, ka))), nil, []LeaseOp{granted(0, 1, 100), {Kind: Ask, Lease: 7, Call: ms(200), Return: ms(201), Outcome: OK, Gone: true, Final: true}},
		}},
		"a put after the revocation is accepted": {DeadLeaseAccepted, History{
			[]Op{attach(1, 20, 21, "a", "1", 7, 10)}, nil, []LeaseOp{granted(0, 1, 100), revoked(6, 10)},
		}},
		"a put after keys were deleted is accepted": {DeadLeaseAccepted, History{
			append(attached(), attach(1, 200, 201, "m", "2", 7, 30)),
			[]Watch{finally(created(0, 1), events(6, 11, born(ka), born(km)), events(150, 20, gone(ka, 20), gone(km, 20)))}, []LeaseOp{granted(0, 1, 100)},
		}},
		"renewed after the revocation": {DeadLeaseRenewed, History{Leases: []LeaseOp{granted(0, 1, 100), revoked(6, 10), renewed(20, 21, 100)}}},
		"a key is deleted twice": {DoubleDelete, History{
			attached()[:1], []Watch{finally(created(0, 1), events(6, 10, born(ka)), events(150, 20, gone(ka, 20)), events(151, 21, gone(ka, 21)))}, []LeaseOp{granted(0, 1, 100)},
		}},
		"a key of no lease is deleted": {EventFromNowhere, History{
			[]Op{put(1, 0, 1, "a", "1", 10)}, []Watch{finally(created(0, 1), events(6, 10, born(a1)), events(150, 20, gone(a1, 20)))}, nil,
		}},
		"a put forgets its lease": {NotLinearizable, History{
			append(attached()[:1], get(1, 4, 5, "a", 10, a1)), []Watch{finally(created(0, 1))}, []LeaseOp{granted(0, 1, 100)},
		}},
		"a read after the end shows the key": {NotLinearizable, History{
			append(attached()[:1], get(1, 160, 161, "a", 20, ka)), []Watch{finally(created(0, 1), events(6, 10, born(ka)), events(150, 20, gone(ka, 20)))}, []LeaseOp{granted(0, 1, 100)},
		}},
		"the end of a lease has the revision of a write": {DuplicateRevision, History{
			append(attached()[:1], put(1, 140, 141, "m", "1", 20)), []Watch{finally(created(0, 1), events(6, 10, born(ka)), events(150, 20, gone(ka, 20), born(kv("m", "1", 20, 20, 1))))},
			[]LeaseOp{granted(0, 1, 100)},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			number(tc.Ops)
			r := Check(tc.History, Options{Seed: 7})
			require.True(t, r.Has(tc.want), "wanted %q in\n%s", tc.want, r)
			require.NotEmpty(t, r.Violations[0].Ops)
		})
	}
}

func TestALateExpiryIsMeasuredFromTheEndOfTheFaults(t *testing.T) {
	h := History{Leases: []LeaseOp{granted(0, 10, 100), there(480, 500), missing(Ask, 900, 950)}}
	require.Equal(t, ms(370), Check(h, Options{}).LatestExpiry, "whoever asks seldom learns late that it is gone")
	require.Equal(t, ms(30), Check(h, Options{Healed: ms(350)}).LatestExpiry)
	require.Equal(t, ms(30), Check(h, Options{Healed: ms(350), Asked: ms(360)}).LatestExpiry)
	require.Equal(t, ms(120), Check(h, Options{Asked: ms(360)}).LatestExpiry, "no node was stopped")
	require.True(t, Check(h, Options{Healed: ms(350), LateBy: ms(40)}).Clean())
	require.True(t, Check(h, Options{Healed: ms(350), LateBy: ms(20)}).Has(LateExpiry))
}

func TestALateExpiryIsExcusedByALostLeader(t *testing.T) {
	h := History{Leases: []LeaseOp{granted(0, 10, 100), there(480, 500), missing(Ask, 900, 950)}}
	lateAfter := func(elected ...Interval) time.Duration {
		return Check(h, Options{Asked: ms(200), Elected: elected}).LatestExpiry
	}
	require.Equal(t, ms(280), lateAfter())
	require.Equal(t, ms(30), lateAfter(Interval{ms(310), ms(350)}))
	require.Equal(t, ms(280), lateAfter(Interval{ms(20), ms(50)}), "its time was over before it was asked for")
	require.Equal(t, ms(30), lateAfter(Interval{ms(310), ms(350)}, Interval{ms(480), ms(550)}), "it was found under the leader before")
	require.Zero(t, lateAfter(Interval{ms(310), ms(350)}, Interval{ms(470), ms(550)}), "the second leader may have found it")
}

func TestRecorderKeepsWatchesAndLeases(t *testing.T) {
	var clock time.Duration
	rec := NewRecorder(func() time.Duration { clock += time.Millisecond; return clock })
	w := rec.Watch(watch(5))
	w.Response(created(0, 9))
	w.Ask()
	w.Response(answered(0, 12))
	w.End("closed by the client")
	grant := rec.InvokeLease(LeaseOp{Kind: Grant, Lease: 7})
	rec.InvokeLease(LeaseOp{Kind: Renew, Lease: 7})
	grant.OK(2 * time.Second)

	h := rec.History()
	require.Equal(t, []WatchResponse{created(2, 9), answered(4, 12)}, h.Watches[0].Responses)
	require.Equal(t, times(3), h.Watches[0].Asked)
	require.Equal(t, OK, h.Leases[0].Outcome)
	require.Equal(t, 2*time.Second, h.Leases[0].TTL)
	require.Equal(t, Unknown, h.Leases[1].Outcome)
}
