package etcdapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/internal/portmux"
	"github.com/flotilla-kv/flotilla/internal/rpcfront"
	"github.com/flotilla-kv/flotilla/router/admission"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeKV keeps keys in memory, without history. Transactions take the success branch.
type fakeKV struct {
	held chan *heldPut // takes the puts that are started; nil: they are answered at once
	mu   struct {
		sync.Mutex
		rev   int64
		kvs   map[string]*mvccpb.KeyValue
		fails []error // what the next calls answer
		calls int
		ctx   context.Context // of the last Range or Txn
	}
}

func newFakeKV() *fakeKV {
	f := &fakeKV{}
	f.mu.rev = 1
	f.mu.kvs = make(map[string]*mvccpb.KeyValue)
	return f
}

// failNext makes the next call fail and forgets the calls so far.
func (f *fakeKV) failNext(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.fails, f.mu.calls = []error{err}, 0
}

func (f *fakeKV) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.calls
}

// begin locks and takes the next failure, if any; the caller unlocks.
func (f *fakeKV) begin() error {
	f.mu.Lock()
	f.mu.calls++
	if len(f.mu.fails) == 0 {
		return nil
	}
	err := f.mu.fails[0]
	f.mu.fails = f.mu.fails[1:]
	return err
}

// context is that of the last Range or Txn.
func (f *fakeKV) context() context.Context {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.ctx
}

func (f *fakeKV) header() *pb.ResponseHeader { return &pb.ResponseHeader{Revision: f.mu.rev} }

func (f *fakeKV) Range(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(); err != nil {
		return nil, err
	}
	f.mu.ctx = ctx
	resp := &pb.RangeResponse{Header: f.header()}
	for k, kv := range f.mu.kvs {
		if k == string(req.Key) || (len(req.RangeEnd) > 0 && k >= string(req.Key) && k < string(req.RangeEnd)) {
			resp.Kvs = append(resp.Kvs, kv)
		}
	}
	slices.SortFunc(resp.Kvs, func(a, b *mvccpb.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
	resp.Count = int64(len(resp.Kvs))
	return resp, room(ctx, resp.Kvs...)
}

// StartGet answers at once, when there is no failure to be told of.
func (f *fakeKV) StartGet(key []byte, done func(*pb.RangeResponse, bool)) bool {
	f.mu.Lock()
	failing := len(f.mu.fails) > 0
	f.mu.Unlock()
	if failing {
		return false
	}
	resp, err := f.Range(context.Background(), &pb.RangeRequest{Key: key})
	done(resp, err == nil)
	return true
}

func (f *fakeKV) RangeStream(ctx context.Context, req *pb.RangeRequest, send func(*pb.RangeResponse) error) error {
	whole, err := f.Range(ctx, req)
	if err != nil {
		return err
	}
	for _, kv := range whole.Kvs {
		if err := send(&pb.RangeResponse{Kvs: []*mvccpb.KeyValue{kv}}); err != nil {
			return err
		}
	}
	return send(&pb.RangeResponse{Header: whole.Header, Count: whole.Count})
}

func (f *fakeKV) Put(_ context.Context, req *pb.PutRequest) (*pb.PutResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(); err != nil {
		return nil, err
	}
	f.mu.rev++
	f.mu.kvs[string(req.Key)] = &mvccpb.KeyValue{Key: req.Key, Value: req.Value, ModRevision: f.mu.rev, CreateRevision: f.mu.rev, Version: 1}
	return &pb.PutResponse{Header: f.header()}, nil
}

// heldPut is a put under way.
type heldPut struct {
	req       *pb.PutRequest
	done      func(*pb.PutResponse, error)
	abandoned chan error
}

// Abandon implements Started.
func (h *heldPut) Abandon(cause error) { h.abandoned <- cause }

func (f *fakeKV) StartEncodedPut(ctx context.Context, req *pb.PutRequest, _ []byte, done func(*pb.PutResponse, error)) rpcfront.Started {
	if f.held != nil {
		h := &heldPut{req, done, make(chan error, 1)}
		f.held <- h
		return h
	}
	done(f.Put(ctx, req))
	return nil
}

func (f *fakeKV) StartEncodedTxn(ctx context.Context, req *pb.TxnRequest, _ []byte, done func(*pb.TxnResponse, error)) rpcfront.Started {
	done(f.Txn(ctx, req))
	return nil
}

func (f *fakeKV) DeleteRange(_ context.Context, req *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(); err != nil {
		return nil, err
	}
	resp := &pb.DeleteRangeResponse{}
	if f.mu.kvs[string(req.Key)] != nil {
		f.mu.rev++
		delete(f.mu.kvs, string(req.Key))
		resp.Deleted = 1
	}
	resp.Header = f.header()
	return resp, nil
}

// room makes room for what is read, as the router does.
func room(ctx context.Context, kvs ...*mvccpb.KeyValue) error {
	a := admission.AnswerOf(ctx)
	return a.Within(func() error {
		for _, kv := range kvs {
			if err := a.Add(len(kv.Key) + len(kv.Value)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (f *fakeKV) Txn(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(); err != nil {
		return nil, err
	}
	f.mu.ctx = ctx
	resp := &pb.TxnResponse{Succeeded: true, Header: f.header()}
	for _, op := range req.Success {
		out := &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Header: f.header()}}}
		if kv := f.mu.kvs[string(op.GetRequestRange().GetKey())]; kv != nil {
			out.GetResponseRange().Kvs = []*mvccpb.KeyValue{kv}
			if err := room(ctx, kv); err != nil {
				return nil, err
			}
		}
		if op.GetRequestPut() != nil {
			out.Response = &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: f.header()}}
		}
		resp.Responses = append(resp.Responses, out)
	}
	return resp, nil
}

func (f *fakeKV) Compact(context.Context, *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(); err != nil {
		return nil, err
	}
	return &pb.CompactionResponse{Header: f.header()}, nil
}

func (f *fakeKV) HashKV(_ context.Context, req *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(); err != nil {
		return nil, err
	}
	return &pb.HashKVResponse{Header: f.header(), Hash: 77, HashRevision: req.Revision, CompactRevision: -1}, nil
}

// fakeCluster is one member that leads, unless told otherwise.
type fakeCluster struct {
	mu struct {
		sync.Mutex
		leaderless bool
		alarms     []*pb.AlarmMember
		sound      bool // whatever alarms there are
	}
	err     error        // immutable; what Members and Status answer
	watches *fakeWatches // immutable; whose revision it has, if there are any
}

func (*fakeCluster) ClusterID() uint64 { return 0xC1 }
func (*fakeCluster) MemberID() uint64  { return 0xA1 }
func (*fakeCluster) RaftTerm() uint64  { return 7 }

func (c *fakeCluster) Revision() int64 {
	if c.watches == nil {
		return 42
	}
	return c.watches.latest()
}

func (c *fakeCluster) HasLeader() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.mu.leaderless
}

func (c *fakeCluster) setLeaderless(leaderless bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.leaderless = leaderless
}

func (c *fakeCluster) Members(context.Context, bool) ([]*pb.Member, error) {
	return []*pb.Member{{ID: 0xA1, Name: "n1", PeerURLs: []string{"http://127.0.0.1:2380"}, ClientURLs: []string{"http://127.0.0.1:2379"}}}, c.err
}

func (c *fakeCluster) RemoveMember(_ context.Context, id uint64) error {
	if id != 0xA1 {
		return rpctypes.ErrGRPCMemberNotFound
	}
	return c.err
}

func (c *fakeCluster) MoveLeader(_ context.Context, id uint64) error {
	if id != 0xA1 {
		return rpctypes.ErrGRPCBadLeaderTransferee
	}
	return c.err
}

func (c *fakeCluster) Status(context.Context) (Status, error) {
	st := Status{RaftIndex: 11, RaftAppliedIndex: 10, DBBytes: 4096, DBInUseBytes: 1024}
	if c.HasLeader() {
		st.Leader = 0xA1
	}
	return st, c.err
}

func (c *fakeCluster) Alarms() []*pb.AlarmMember {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.mu.alarms)
}

func (c *fakeCluster) Damaged() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.mu.sound && slices.ContainsFunc(c.mu.alarms, func(a *pb.AlarmMember) bool { return a.Alarm == pb.AlarmType_CORRUPT })
}

func (c *fakeCluster) setSound() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.sound = true
}

func (c *fakeCluster) RaiseAlarm(_ context.Context, a *pb.AlarmMember) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.alarms = append(c.mu.alarms, a)
	return nil
}

func (c *fakeCluster) ClearAlarm(_ context.Context, a *pb.AlarmMember) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.mu.alarms)
	c.mu.alarms = slices.DeleteFunc(c.mu.alarms, func(x *pb.AlarmMember) bool {
		return x.MemberID == a.MemberID && x.Alarm == a.Alarm
	})
	return len(c.mu.alarms) < before, nil
}

// face is a Server on one loopback port for gRPC and HTTP, as a node serves it.
type face struct {
	kv       *fakeKV
	leases   *fakeLeases
	watches  *fakeWatches
	cluster  *fakeCluster
	server   *Server
	addr     string
	client   *clientv3.Client
	http     *http.Client
	registry *prometheus.Registry
}

func newFace(t *testing.T) *face { return newFaceOf(t, Config{}) }

func newFaceOf(t *testing.T, cfg Config) *face {
	t.Helper()
	watches := newFakeWatches()
	f := &face{
		kv: newFakeKV(), watches: watches, leases: newFakeLeases(), cluster: &fakeCluster{watches: watches}, registry: prometheus.NewRegistry(),
	}
	cfg.Registerer = f.registry
	f.server = New(cfg, f.kv, f.watches, f.leases, f.cluster)

	root, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f.addr = root.Addr().String()
	mux, err := portmux.New(root, portmux.Config{}, portmux.HTTP2(), portmux.HTTP1())
	require.NoError(t, err)
	grpcServer := rpcfront.New(mux.Listener(0), f.server.Front(), f.server.ServerOptions()...)
	own, err := StartLoopback(f.server.ServerOptions(), f.server.Register)
	require.NoError(t, err)
	coordination := NewCoordination(own.Conn(), nil)
	register := func(g grpc.ServiceRegistrar) {
		f.server.Register(g)
		coordination.Register(g)
	}
	register(grpcServer)
	loopback, err := StartLoopback(f.server.ServerOptions(), register)
	require.NoError(t, err)
	gateway, err := f.server.NewGateway(loopback.Conn())
	require.NoError(t, err)
	httpServer := NewHTTPServer(f.server.Guard(f.server.HTTPHandler(gateway, promhttp.HandlerFor(f.registry, promhttp.HandlerOpts{}))), slog.New(slog.DiscardHandler))

	// A connection whose request was not read to its end stays for half a second after its answer.
	var serving, conns sync.WaitGroup
	httpServer.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			conns.Add(1)
		case http.StateClosed, http.StateHijacked:
			conns.Done()
		}
	}
	serving.Go(func() { require.NoError(t, mux.Serve()) })
	serving.Go(func() { require.NoError(t, grpcServer.Run()) })
	serving.Go(func() { _ = httpServer.Serve(mux.Listener(1)) })

	f.client, err = clientv3.New(clientv3.Config{Endpoints: []string{f.addr}})
	require.NoError(t, err)
	f.http = &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		f.http.CloseIdleConnections()
		require.NoError(t, f.client.Close())
		require.NoError(t, loopback.Close())
		grpcServer.Stop()
		coordination.Close()
		require.NoError(t, own.Close())
		require.NoError(t, httpServer.Close())
		if err := mux.Close(); !errors.Is(err, net.ErrClosed) {
			require.NoError(t, err)
		}
		serving.Wait()
		conns.Wait()
	})
	return f
}

// get returns the status and body of a GET.
func (f *face) get(t *testing.T, path string) (int, string) {
	t.Helper()
	return f.do(t, http.MethodGet, path, "")
}

func (f *face) do(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+f.addr+path, strings.NewReader(body))
	require.NoError(t, err)
	resp, err := f.http.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(got)
}
