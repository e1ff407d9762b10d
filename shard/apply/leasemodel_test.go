package apply_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/lease"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// leaseModel is what the model knows about leases. Where keys may be attached is a set
// of first bytes: no span that the generator makes cuts between two keys of one.
type leaseModel struct {
	records map[int64]modelLease
	// Keys may be attached by registered; newest also remembers what did hold before a merge.
	registered, newest map[int64]int64
	fences             [256]uint64
	reign              uint64
	// left is what the last reign has left to leases that are still there, in milliseconds.
	left map[int64]uint64
}

type modelLease struct {
	ttl, incarnation int64
	revoking         bool
	cells            [256]bool
}

func newLeaseModel() leaseModel {
	return leaseModel{records: map[int64]modelLease{}, left: map[int64]uint64{}, registered: map[int64]int64{}, newest: map[int64]int64{}}
}

func classOf(id int64) byte { return shard.HomeKey(id)[7] }

// cells lists the first bytes of a span's keys.
func cells(s shard.Span) (first, end int) {
	end = 256
	if len(s.Start) > 0 {
		first = int(s.Start[0])
	}
	if len(s.End) > 0 {
		end = int(s.End[0])
	}
	return first, end
}

func (l modelLease) with(s shard.Span) modelLease {
	first, end := cells(s)
	for c := first; c < end; c++ {
		l.cells[c] = true
	}
	return l
}

// spans joins the cells.
func (l modelLease) spans() (out []*shardpb.Span) {
	for c, in := range l.cells {
		switch {
		case in && (c == 0 || !l.cells[c-1]):
			out = append(out, &shardpb.Span{Start: []byte{byte(c)}})
		case !in && c > 0 && l.cells[c-1]:
			out[len(out)-1].End = []byte{byte(c)}
		}
	}
	return out
}

func (m *model) isHome(id int64) bool { return m.span.Contains(shard.HomeKey(id)) }

func (m *model) mayAttach(id int64) error {
	switch l, ok := m.leases.records[id]; {
	case id == 0:
		return nil
	case m.isHome(id):
		if !ok || l.revoking {
			return shard.ErrLeaseNotFound
		}
		return nil
	case m.leases.registered[id] == 0:
		return &shard.UnregisteredLeaseError{Shard: m.id, Lease: id, Fence: m.leases.fences[classOf(id)]}
	}
	return nil
}

func (l *leaseModel) attach(id int64, span shard.Span) {
	if rec, ok := l.records[id]; ok && l.registered[id] != rec.incarnation {
		l.records[id] = rec.with(span)
		l.registered[id], l.newest[id] = rec.incarnation, rec.incarnation
	}
}

func (m *model) lease(cmd *shardpb.Command) (proto.Message, error) {
	var req shardpb.LeaseCommand
	if proto.Unmarshal(cmd.Body, &req) != nil {
		return nil, apply.ErrMalformed
	}
	l := &m.leases
	id := req.Lease
	span := shard.Span{Start: req.GetSpan().GetStart(), End: req.GetSpan().GetEnd()}
	switch cmd.Kind {
	case shardpb.Kind_LEASE_REIGN:
		l.reign++
		clear(l.left)
		return &shardpb.LeaseAnswer{Reign: l.reign}, nil
	case shardpb.Kind_LEASE_BEQUEATH:
		if req.Will.Reign != l.reign {
			return nil, shard.ErrLeaseRace
		}
		l.left = l.leftBy(req.Will)
		return &shardpb.LeaseAnswer{}, nil
	case shardpb.Kind_LEASE_REGISTER:
		if m.isHome(id) || req.Fence != l.fences[classOf(id)] || l.newest[id] > req.Incarnation {
			return nil, shard.ErrLeaseRace
		}
		l.registered[id], l.newest[id] = req.Incarnation, req.Incarnation
		return &shardpb.LeaseAnswer{Incarnation: req.Incarnation}, nil
	case shardpb.Kind_LEASE_DETACH:
		if !m.span.ContainsSpan(span) {
			return nil, &shard.WrongShardError{}
		}
		if l.newest[id] > req.Incarnation {
			return &shardpb.LeaseAnswer{}, nil
		}
		return &shardpb.LeaseAnswer{Deleted: m.detach(id, span, cmd)}, nil
	}
	if !m.isHome(id) {
		return nil, &shard.WrongShardError{}
	}
	rec, ok := l.records[id]
	switch cmd.Kind {
	case shardpb.Kind_LEASE_GRANT:
		if ok {
			return nil, shard.ErrLeaseExists
		}
		m.floor = shard.NextRevision(m.floor, shard.Tick(cmd.Stamp), m.slot)
		l.records[id] = modelLease{ttl: req.Ttl, incarnation: int64(m.floor)}
		return &shardpb.LeaseAnswer{Ttl: req.Ttl, Incarnation: int64(m.floor)}, nil
	case shardpb.Kind_LEASE_ATTACH:
		if !ok || rec.revoking {
			return nil, shard.ErrLeaseNotFound
		}
		l.records[id] = rec.with(span)
		return &shardpb.LeaseAnswer{Ttl: rec.ttl, Incarnation: rec.incarnation}, nil
	case shardpb.Kind_LEASE_REVOKE:
		return m.revoke(cmd, &req)
	default:
		switch {
		case !ok || req.Incarnation < rec.incarnation:
		case !rec.revoking || req.Incarnation > rec.incarnation:
			return nil, shard.ErrLeaseRace
		default:
			l.forget(id)
		}
		return &shardpb.LeaseAnswer{}, nil
	}
}

// leftBy is what a will leaves to the leases that there are.
func (l *leaseModel) leftBy(w *shardpb.LeaseWill) map[int64]uint64 {
	left := map[int64]uint64{}
	for i, id := range w.GetLeases() {
		if rec, ok := l.records[id]; ok && rec.incarnation <= w.Newest {
			left[id] = w.LeftMs[i]
		}
	}
	return left
}

func (l *leaseModel) forget(id int64) {
	delete(l.records, id)
	delete(l.left, id)
}

func (m *model) revoke(cmd *shardpb.Command, req *shardpb.LeaseCommand) (proto.Message, error) {
	l := &m.leases
	rec, ok := l.records[req.Lease]
	switch {
	case !ok:
		return nil, shard.ErrLeaseNotFound
	case req.Reign != 0 && req.Reign != l.reign, req.Incarnation != 0 && req.Incarnation != rec.incarnation:
		return nil, shard.ErrLeaseRace
	}
	answer := &shardpb.LeaseAnswer{Ttl: rec.ttl, Incarnation: rec.incarnation}
	first, end := cells(m.span)
	elsewhere := slices.Contains(rec.cells[:first], true) || slices.Contains(rec.cells[end:], true)
	if elsewhere {
		rec.revoking = true
		l.records[req.Lease] = rec
		answer.Spans = rec.spans()
		return answer, nil
	}
	if len(rec.spans()) > 0 {
		answer.Deleted = m.detach(req.Lease, m.span, cmd)
	}
	answer.Gone = true
	l.forget(req.Lease)
	return answer, nil
}

func (m *model) detach(id int64, span shard.Span, cmd *shardpb.Command) (deleted int64) {
	delete(m.leases.registered, id)
	delete(m.leases.newest, id)
	m.leases.fences[classOf(id)]++
	w := &modelTxn{model: m, before: m.now.kvs, kvs: maps.Clone(m.now.kvs)}
	w.rev = shard.NextRevision(m.floor, shard.Tick(cmd.Stamp), m.slot)
	for _, key := range m.attached(id, span) {
		delete(w.kvs, string(key))
		w.writes++
	}
	w.commit()
	return int64(w.writes)
}

func (m *model) attached(id int64, span shard.Span) (keys [][]byte) {
	for _, kv := range inSpan(m.now.kvs, span) {
		if kv.Lease == id {
			keys = append(keys, kv.Key)
		}
	}
	return keys
}

// checkLeases compares all that is known about leases, and checks L1 for those at home.
func (m *model) checkLeases(t *testing.T, f *fixture) {
	t.Helper()
	state := f.machine.Leases().State()
	got, err := lease.NewTable(state)
	require.NoError(t, err)
	require.Equal(t, m.leases.left, m.leases.leftBy(state.Will))
	u := got.Update()
	require.Equal(t, len(m.leases.records), got.Len())
	for _, id := range append(homeLeases(), foreignLeases()...) {
		keys, err := f.machine.LeaseKeys(id)
		require.NoError(t, err)
		require.Equal(t, m.attached(id, m.span), keys)
		require.Equal(t, m.leases.registered[id], u.Registered(id))
		require.Equal(t, m.leases.newest[id], u.Newest(id))
		require.Equal(t, m.leases.fences[classOf(id)], u.Fence(id))
		want, ok := m.leases.records[id]
		rec := got.Record(id)
		require.Equal(t, ok, rec != nil)
		if ok {
			require.Equal(t, want.ttl, rec.TTL)
			require.Equal(t, []any{want.incarnation, want.revoking}, []any{rec.Incarnation, rec.Revoking})
			require.Equal(t, want.spans(), lease.SpansProto(rec.Spans))
		}
		for _, key := range keys {
			require.True(t, !m.isHome(id) || want.cells[key[0]], "key %q outside of the spans of lease %d", key, id)
		}
	}
	require.Equal(t, m.leases.reign, got.Reign())
}

// homeLeases and foreignLeases are a few of which the shard with the span [b, y) is, and
// is not, the home.
func homeLeases() []int64    { return someLeases(true) }
func foreignLeases() []int64 { return someLeases(false) }

func someLeases(home bool) (out []int64) {
	span := shard.Span{Start: []byte("b"), End: []byte("y")}
	for id := int64(1); len(out) < 3; id++ {
		if span.Contains(shard.HomeKey(id)) == home {
			out = append(out, id)
		}
	}
	return out
}

func (g *generator) lease() int64 {
	if g.oneIn(3) {
		return foreignLeases()[g.IntN(3)]
	}
	return homeLeases()[g.IntN(3)]
}

func (g *generator) leaseCommand() *shardpb.Command {
	req := &shardpb.LeaseCommand{Lease: homeLeases()[g.IntN(3)]}
	kind := shardpb.Kind_LEASE_GRANT
	// near is mostly n, and one off otherwise.
	near := func(n int64) int64 {
		if g.oneIn(6) {
			return max(1, n+int64(1-2*g.IntN(2)))
		}
		return max(1, n)
	}
	l := &g.model.leases
	switch g.IntN(13) {
	case 0, 1, 2:
		req.Ttl = 1 + int64(g.IntN(3))
	case 3:
		kind = shardpb.Kind_LEASE_ATTACH
		req.Span = g.span()
	case 4, 5:
		kind = shardpb.Kind_LEASE_REVOKE
		if g.oneIn(2) {
			req.Reign, req.Incarnation = uint64(near(int64(l.reign))), near(l.records[req.Lease].incarnation)
		}
	case 6: // its sender has seen that nothing is attached
		if len(g.model.attached(req.Lease, shard.Everything())) > 0 {
			return g.leaseCommand()
		}
		kind = shardpb.Kind_LEASE_FORGET
		req.Incarnation = near(l.records[req.Lease].incarnation)
	case 7:
		kind = shardpb.Kind_LEASE_REIGN
	case 8:
		kind = shardpb.Kind_LEASE_BEQUEATH
		req = &shardpb.LeaseCommand{Will: &shardpb.LeaseWill{Format: 1, Reign: uint64(near(int64(l.reign)))}}
		for _, id := range homeLeases()[:g.IntN(4)] {
			req.Will.Leases, req.Will.LeftMs = append(req.Will.Leases, id), append(req.Will.LeftMs, uint64(g.IntN(3000)))
			req.Will.Newest = max(req.Will.Newest, l.records[id].incarnation-int64(g.IntN(2)))
		}
	case 9, 10:
		kind = shardpb.Kind_LEASE_REGISTER
		req.Lease = foreignLeases()[g.IntN(3)]
		req.Incarnation = near(l.newest[req.Lease])
		req.Fence = l.fences[classOf(req.Lease)]
		if g.oneIn(6) {
			req.Fence--
		}
	default:
		kind = shardpb.Kind_LEASE_DETACH
		req.Lease = g.lease()
		req.Incarnation, req.Span = near(l.newest[req.Lease]), g.span()
		if g.oneIn(2) {
			req.Span = &shardpb.Span{Start: []byte("b"), End: []byte("y")}
		}
	}
	if g.oneIn(20) {
		req.Lease = g.lease()
	}
	return command(g.t, kind, g.stamp, req)
}

// span is mostly inside the shard's.
func (g *generator) span() *shardpb.Span {
	start := 'b' + byte(g.IntN(20))
	s := &shardpb.Span{Start: []byte{start}}
	if !g.oneIn(6) {
		s.End = []byte{min(start+1+byte(g.IntN(8)), 'y')}
	}
	return s
}
