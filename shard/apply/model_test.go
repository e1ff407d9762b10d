package apply_test

import (
	"bytes"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// model is the machine as simply as it can be said: a map, copied for every
// transaction and kept for every revision. A transaction works on the copy, and the
// copy is thrown away when an operation fails.
type model struct {
	now                   state
	history               []state // one per revision, in order
	rev, floor, compacted shard.Revision
	id                    shard.ID
	epoch                 uint64
	slot                  shard.Slot
	span                  shard.Span
	leases                leaseModel
}

type state struct {
	rev shard.Revision
	kvs map[string]*mvccpb.KeyValue
}

func (m *model) apply(cmd *shardpb.Command) shard.Result {
	resp, err := m.command(cmd)
	return shard.Result{Revision: m.rev, Response: resp, Err: err}
}

func (m *model) command(cmd *shardpb.Command) (proto.Message, error) {
	if cmd.Kind == shardpb.Kind_INIT {
		d := shard.DescriptorOf(cmd.Descriptor_)
		*m = model{rev: 1, floor: 1, id: d.ID, epoch: d.Epoch, slot: d.Slot, span: d.Span, now: state{rev: 1, kvs: map[string]*mvccpb.KeyValue{}}, leases: newLeaseModel()}
		m.history = []state{m.now}
		return nil, nil
	}
	if cmd.Epoch != m.epoch {
		return nil, &shard.WrongShardError{}
	}
	switch cmd.Kind {
	case shardpb.Kind_CLOSE:
		m.floor = max(m.floor, shard.Revision(cmd.Revision))
		return nil, m.valid(cmd)
	case shardpb.Kind_COMPACT:
		if err := m.valid(cmd); err != nil {
			return nil, err
		}
		if shard.Revision(cmd.Revision) <= m.compacted {
			return nil, shard.ErrCompacted
		}
		m.compacted = shard.Revision(cmd.Revision)
		m.rev = max(m.rev, m.compacted, shard.Revision(cmd.Seen))
		m.floor = max(m.floor, m.rev)
		return nil, nil
	}
	if strings.HasPrefix(cmd.Kind.String(), "LEASE_") {
		return m.lease(cmd)
	}
	return m.write(cmd)
}

func (m *model) valid(cmd *shardpb.Command) error {
	if cmd.Revision < 0 {
		return apply.ErrMalformed
	}
	return nil
}

func (m *model) write(cmd *shardpb.Command) (proto.Message, error) {
	op, err := m.requestOf(cmd)
	if err != nil {
		return nil, err
	}
	if !m.owns(op) {
		return nil, &shard.WrongShardError{}
	}
	w := &modelTxn{model: m, before: m.now.kvs, kvs: maps.Clone(m.now.kvs)}
	w.rev = shard.NextRevision(m.floor, shard.Tick(cmd.Stamp), m.slot)
	resp := w.run(op)
	if w.err != nil {
		return nil, w.err
	}
	w.commit()
	switch r := resp.Response.(type) {
	case *pb.ResponseOp_ResponsePut:
		r.ResponsePut.Header = nil
		return r.ResponsePut, nil
	case *pb.ResponseOp_ResponseDeleteRange:
		r.ResponseDeleteRange.Header = nil
		return r.ResponseDeleteRange, nil
	default:
		resp.GetResponseTxn().Header = nil
		return resp.GetResponseTxn(), nil
	}
}

// requestOf makes every write an operation, so that one function runs them all.
func (m *model) requestOf(cmd *shardpb.Command) (*pb.RequestOp, error) {
	op, req := &pb.RequestOp{}, proto.Message(nil)
	switch cmd.Kind {
	case shardpb.Kind_PUT:
		put := &pb.PutRequest{}
		op.Request, req = &pb.RequestOp_RequestPut{RequestPut: put}, put
	case shardpb.Kind_DELETE_RANGE:
		del := &pb.DeleteRangeRequest{}
		op.Request, req = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: del}, del
	default:
		txn := &pb.TxnRequest{}
		op.Request, req = &pb.RequestOp_RequestTxn{RequestTxn: txn}, txn
	}
	if proto.Unmarshal(cmd.Body, req) != nil {
		return nil, apply.ErrMalformed
	}
	return op, nil
}

func (m *model) owns(op *pb.RequestOp) bool {
	owns := func(key, end []byte) bool {
		s := shard.RequestSpan(key, end)
		return s.Empty() || m.span.ContainsSpan(s)
	}
	switch o := op.Request.(type) {
	case *pb.RequestOp_RequestPut:
		return owns(o.RequestPut.Key, nil)
	case *pb.RequestOp_RequestDeleteRange:
		return owns(o.RequestDeleteRange.Key, o.RequestDeleteRange.RangeEnd)
	case *pb.RequestOp_RequestRange:
		return owns(o.RequestRange.Key, o.RequestRange.RangeEnd)
	}
	t := op.GetRequestTxn()
	for _, c := range t.Compare {
		if !owns(c.Key, c.RangeEnd) {
			return false
		}
	}
	for _, op := range slices.Concat(t.Success, t.Failure) {
		if !m.owns(op) {
			return false
		}
	}
	return true
}

// modelTxn is one write. The first operation that is refused fails it. As checks are
// not made beforehand here but on the way, what an operation checks is the state
// before.
type modelTxn struct {
	*model
	before, kvs map[string]*mvccpb.KeyValue
	rev         shard.Revision
	writes      int
	err         error
	put         []string
	deleted     []shard.Span
	// repeated is remembered and told last: all other faults come first.
	repeated bool
}

func (w *modelTxn) commit() {
	if w.writes == 0 {
		return
	}
	for _, key := range w.put {
		if kv, old := w.kvs[key], w.before[key]; kv.Lease != old.GetLease() {
			w.leases.attach(kv.Lease, w.span)
		}
	}
	w.now = state{rev: w.rev, kvs: w.kvs}
	w.history = append(w.history, w.now)
	w.model.rev, w.floor = w.rev, w.rev
}

func (w *modelTxn) run(op *pb.RequestOp) *pb.ResponseOp {
	resp := w.op(op)
	if w.err == nil && w.repeated {
		w.err = rpctypes.ErrGRPCDuplicateKey
	}
	return resp
}

func (w *modelTxn) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

func (w *modelTxn) header() *pb.ResponseHeader {
	if w.writes > 0 {
		return &pb.ResponseHeader{Revision: int64(w.rev)}
	}
	return &pb.ResponseHeader{Revision: int64(w.model.rev)}
}

func (w *modelTxn) op(op *pb.RequestOp) *pb.ResponseOp {
	switch o := op.Request.(type) {
	case *pb.RequestOp_RequestPut:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: w.opPut(o.RequestPut)}}
	case *pb.RequestOp_RequestDeleteRange:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: w.opDelete(o.RequestDeleteRange)}}
	case *pb.RequestOp_RequestRange:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: w.opRange(o.RequestRange)}}
	default:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: w.opTxn(op.GetRequestTxn())}}
	}
}

func (w *modelTxn) opPut(r *pb.PutRequest) *pb.PutResponse {
	w.fail(w.mayAttach(r.Lease))
	if (r.IgnoreValue || r.IgnoreLease) && w.before[string(r.Key)] == nil {
		w.fail(shard.ErrKeyNotFound)
	}
	if slices.Contains(w.put, string(r.Key)) || slices.ContainsFunc(w.deleted, func(s shard.Span) bool { return s.Contains(r.Key) }) {
		w.repeated = true
	}
	w.put = append(w.put, string(r.Key))

	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, CreateRevision: int64(w.rev), ModRevision: int64(w.rev), Version: 1, Lease: r.Lease}
	old := w.kvs[string(r.Key)]
	if old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
		if r.IgnoreValue {
			kv.Value = old.Value
		}
	}
	if r.IgnoreLease {
		kv.Lease = old.GetLease()
	}
	w.kvs[string(r.Key)] = kv
	w.writes++
	resp := &pb.PutResponse{Header: w.header()}
	if r.PrevKv {
		resp.PrevKv = old
	}
	return resp
}

func (w *modelTxn) opDelete(r *pb.DeleteRangeRequest) *pb.DeleteRangeResponse {
	span := shard.RequestSpan(r.Key, r.RangeEnd)
	if slices.ContainsFunc(w.put, func(key string) bool { return span.Contains([]byte(key)) }) {
		w.repeated = true
	}
	w.deleted = append(w.deleted, span)
	resp := &pb.DeleteRangeResponse{}
	for _, kv := range inSpan(w.kvs, span) {
		delete(w.kvs, string(kv.Key))
		w.writes++
		resp.Deleted++
		if r.PrevKv {
			resp.PrevKvs = append(resp.PrevKvs, kv)
		}
	}
	resp.Header = w.header()
	return resp
}

func (w *modelTxn) opRange(r *pb.RangeRequest) *pb.RangeResponse {
	kvs := w.kvs
	if at := shard.Revision(r.Revision); at != 0 {
		switch {
		case at < w.compacted:
			w.fail(shard.ErrCompacted)
			return nil
		case at > w.floor:
			w.fail(shard.ErrFutureRevision)
			return nil
		}
		kvs = w.at(at)
	}
	resp := answer(r, kvs)
	resp.Header = w.header()
	return resp
}

// opTxn chooses the branch on the state before; see modelTxn.
func (w *modelTxn) opTxn(t *pb.TxnRequest) *pb.TxnResponse {
	resp := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: true}
	for _, c := range t.Compare {
		resp.Succeeded = resp.Succeeded && w.holds(c)
	}
	ops := t.Success
	if !resp.Succeeded {
		ops = t.Failure
	}
	for _, op := range ops {
		resp.Responses = append(resp.Responses, w.op(op))
	}
	return resp
}

func (w *modelTxn) holds(c *pb.Compare) bool {
	kvs := inSpan(w.before, shard.RequestSpan(c.Key, c.RangeEnd))
	if len(kvs) == 0 {
		if c.Target == pb.Compare_VALUE {
			return false
		}
		kvs = append(kvs, &mvccpb.KeyValue{})
	}
	return !slices.ContainsFunc(kvs, func(kv *mvccpb.KeyValue) bool {
		order := map[pb.Compare_CompareTarget]int{
			pb.Compare_VALUE:   bytes.Compare(kv.Value, c.GetValue()),
			pb.Compare_VERSION: int(kv.Version - c.GetVersion()),
			pb.Compare_CREATE:  int(kv.CreateRevision - c.GetCreateRevision()),
			pb.Compare_MOD:     int(kv.ModRevision - c.GetModRevision()),
			pb.Compare_LEASE:   int(kv.Lease - c.GetLease()),
		}[c.Target]
		holds, known := map[pb.Compare_CompareResult]bool{
			pb.Compare_EQUAL: order == 0, pb.Compare_NOT_EQUAL: order != 0,
			pb.Compare_GREATER: order > 0, pb.Compare_LESS: order < 0,
		}[c.Result]
		return known && !holds
	})
}

// at is the state as of a revision.
func (m *model) at(rev shard.Revision) map[string]*mvccpb.KeyValue {
	var kvs map[string]*mvccpb.KeyValue
	for _, s := range m.history {
		if s.rev <= rev {
			kvs = s.kvs
		}
	}
	return kvs
}

func inSpan(kvs map[string]*mvccpb.KeyValue, s shard.Span) (out []*mvccpb.KeyValue) {
	for _, key := range slices.Sorted(maps.Keys(kvs)) {
		if s.Contains([]byte(key)) {
			out = append(out, kvs[key])
		}
	}
	return out
}

// answer knows of a range request what the generator uses of it.
func answer(r *pb.RangeRequest, kvs map[string]*mvccpb.KeyValue) *pb.RangeResponse {
	found := inSpan(kvs, shard.RequestSpan(r.Key, r.RangeEnd))
	resp := &pb.RangeResponse{Count: int64(len(found))}
	if r.CountOnly {
		return resp
	}
	quirk := r.SortTarget != pb.RangeRequest_KEY && r.SortOrder == pb.RangeRequest_NONE
	if quirk && r.Limit > 0 && int64(len(found)) > r.Limit+1 {
		found = found[:r.Limit+1]
	}
	by := func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) }
	if r.SortTarget == pb.RangeRequest_VERSION {
		by = func(a, b *mvccpb.KeyValue) int { return int(a.Version - b.Version) }
	}
	if r.SortOrder == pb.RangeRequest_DESCEND {
		slices.SortStableFunc(found, func(a, b *mvccpb.KeyValue) int { return by(b, a) })
	} else {
		slices.SortStableFunc(found, by)
	}
	if r.Limit > 0 && int64(len(found)) > r.Limit {
		found, resp.More = found[:r.Limit], true
	}
	for _, kv := range found {
		kv = proto.CloneOf(kv)
		if r.KeysOnly {
			kv.Value, kv.Lease = nil, 0
		}
		resp.Kvs = append(resp.Kvs, kv)
	}
	return resp
}

// Random commands give what the model gives: results, and every readable past.
func TestMachineFollowsModel(t *testing.T) {
	g := seeded(t)
	f := newFixture(t)
	m := &model{}
	for i, cmds := range g.logOf(600) {
		got := f.apply(cmds...)
		require.Len(t, got, len(cmds))
		for j, cmd := range cmds {
			want := m.apply(cmd)
			if !sameResult(want, got[j]) {
				t.Fatalf("entry %d command %d: %s\nmodel:   %v\nmachine: %v", i, j, describe(cmd), want, got[j])
			}
		}
		view := f.machine.View()
		require.Equal(t, []shard.Revision{m.rev, m.floor, m.compacted}, []shard.Revision{view.Rev, view.Floor, view.Compacted})
		m.checkRead(t, g, f)
		m.checkLeases(t, f)
	}
}

// checkRead reads at a random revision, around the present and the compaction.
func (m *model) checkRead(t *testing.T, g *generator, f *fixture) {
	req := g.rangeRequest()
	at := shard.Revision(req.Revision)
	got, err := f.machine.Range(req, 0)
	kvs := m.now.kvs
	if at != 0 {
		kvs = m.at(at)
	}
	switch span := shard.RequestSpan(req.Key, req.RangeEnd); {
	case at > m.floor:
		require.ErrorIs(t, err, shard.ErrFutureRevision)
	case at != 0 && at < m.compacted:
		require.ErrorIs(t, err, shard.ErrCompacted)
	case !span.Empty() && !m.span.ContainsSpan(span):
		var wrong *shard.WrongShardError
		require.ErrorAs(t, err, &wrong)
	default:
		require.NoError(t, err)
		require.Equal(t, response(answer(req, kvs)), response(got), "%v", req)
	}
}

func sameResult(want, got shard.Result) bool {
	if want.Revision != got.Revision || (want.Err == nil) != (got.Err == nil) {
		return false
	}
	if want.Err != nil {
		if wrong := (*shard.WrongShardError)(nil); errors.As(want.Err, &wrong) {
			return errors.As(got.Err, &wrong)
		}
		if unregistered := (*shard.UnregisteredLeaseError)(nil); errors.As(want.Err, &unregistered) {
			return reflect.DeepEqual(want.Err, got.Err)
		}
		return errors.Is(got.Err, want.Err)
	}
	if want.Response == nil || got.Response == nil {
		return want.Response == nil && got.Response == nil
	}
	if answer, ok := got.Response.(*shardpb.LeaseAnswer); ok && answer.Will != nil { // checkLeases looks at wills
		answer = proto.CloneOf(answer)
		answer.Will = nil
		return proto.Equal(want.Response, answer)
	}
	return proto.Equal(want.Response, got.Response)
}

func describe(cmd *shardpb.Command) string {
	if req := new(shardpb.LeaseCommand); strings.HasPrefix(cmd.Kind.String(), "LEASE_") && proto.Unmarshal(cmd.Body, req) == nil {
		return cmd.Kind.String() + " " + req.String()
	}
	op, err := (&model{}).requestOf(cmd)
	if err != nil {
		return cmd.String()
	}
	return cmd.Kind.String() + " " + op.String()
}
