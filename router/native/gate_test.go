package native_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/auth"
	"github.com/flotilla-kv/flotilla/router/native"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/hlc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// replicas stands for a node's: it records what reaches them.
type replicas struct {
	write func(*router.Request, router.Ender) // nil answers at once

	feed router.Feed // nil: it was compacted

	mu      sync.Mutex
	reached []*router.Request
}

func (r *replicas) note(req *router.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reached = append(r.reached, req)
}

func (r *replicas) all() []*router.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reached
}

func (r *replicas) Write(req *router.Request, end router.Ender) {
	r.note(req)
	if r.write != nil {
		r.write(req, end)
		return
	}
	end.End(&router.Reply{Rev: 7, Message: &pb.PutResponse{}}, nil)
}

func (r *replicas) Read(_ context.Context, req *router.Request) (*router.Reply, error) {
	r.note(req)
	return &router.Reply{Rev: 7}, nil
}

func (r *replicas) StartRead(req *router.Request, done func(*router.Reply, error)) bool {
	r.note(req)
	done(&router.Reply{Rev: 7}, nil)
	return true
}

func (r *replicas) Subscribe(router.Subscription, func()) (router.Feed, error) {
	if r.feed == nil {
		return nil, shard.ErrCompacted
	}
	return r.feed, nil
}

// routed stands for the node's router.
type routed struct {
	wait chan struct{} // puts wait for it to be closed; nil: for nothing

	elsewhere replicas // of the nodes that requests are relayed to

	attached map[int64][][]byte // keys of leases
	silent   map[int64]bool     // leases with keys in a shard that does not answer

	mu sync.Mutex
	to []shard.NodeID // which ones
}

func (r *routed) relay(node shard.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = append(r.to, node)
}

func (r *routed) Relay(ctx context.Context, node shard.NodeID, req *router.Request) (*router.Reply, error) {
	r.relay(node)
	return r.elsewhere.Read(ctx, req)
}

func (r *routed) RelayWrite(_ context.Context, node shard.NodeID, req *router.Request, end router.Ender) {
	r.relay(node)
	r.elsewhere.Write(req, end)
}

func (r *routed) RelayFeed(_ context.Context, node shard.NodeID, sub router.Subscription, ready func()) (router.Feed, error) {
	r.relay(node)
	return r.elsewhere.Subscribe(sub, ready)
}

func (r *routed) Put(_ context.Context, req *pb.PutRequest) (*pb.PutResponse, error) {
	if r.wait != nil {
		<-r.wait
	}
	return &pb.PutResponse{Header: &pb.ResponseHeader{Revision: 1000 + req.Lease}}, nil
}

func (r *routed) TimeToLive(ctx context.Context, req *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	if r.silent[req.ID] {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return &pb.LeaseTimeToLiveResponse{ID: req.ID, Keys: r.attached[req.ID]}, nil
}

func (r *routed) Leases(context.Context, *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	resp := &pb.LeaseLeasesResponse{}
	for id := range r.attached {
		resp.Leases = append(resp.Leases, &pb.LeaseStatus{ID: id})
	}
	return resp, nil
}

func (*routed) Txn(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error) {
	return nil, shard.ErrLeaseNotFound
}

// self is the node that is tested.
const self = 4

// still is a clock that stands.
type still struct{ now time.Time }

func (c still) Now() time.Time { return c.now }

type harness struct {
	replicas *replicas
	executor peer.Executor // the replicas, unless a test has others
	routed   *routed
	seen     *hlc.Hybrid
	clock    still
	room     *admission.Room
	guard    *auth.Guard
	token    string // of the streams
	conn     *grpc.ClientConn
	native   *native.Server

	mu      sync.Mutex
	table   *placement.State
	changed chan struct{}
}

// newest is the table, and what is closed when it is no longer that.
func (h *harness) newest() (*placement.Map, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.table.Map(), h.changed
}

// change applies a command to the table.
func (h *harness) change(t *testing.T, c *placementpb.Command) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	require.NoError(t, placement.ResultError(h.table.Apply(c)))
	close(h.changed)
	h.changed = make(chan struct{})
}

func serve(t *testing.T) *harness {
	h := &harness{
		replicas: &replicas{}, routed: &routed{}, clock: still{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}, room: admission.NewRoom(nil, admission.Bounds{}),
		table: table(t), changed: make(chan struct{}), guard: auth.New(auth.Config{Uptime: func() time.Duration { return 0 }}),
	}
	h.executor = h.replicas
	h.seen = hlc.NewHybrid(h.clock)
	server := grpc.NewServer(grpc.ForceServerCodecV2(peer.Codec()))
	h.native = native.New(native.Config{
		Self: self, Room: h.room, Executor: func(context.Context) peer.Executor { return h.executor }, Publisher: h.replicas, Router: h.routed, Revisions: h.seen, Clock: h.clock, MaxClockOffset: time.Second,
		Table: h.newest, Auth: h.guard,
	})
	h.native.Register(server)
	listener := bufconn.Listen(1 << 20)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(listener) })
	conn, err := grpc.NewClient("passthrough:///node", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	require.NoError(t, err)
	h.conn = conn
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		served.Wait()
	})
	return h
}

func table(t *testing.T) *placement.State {
	state := placement.NewState()
	meta := &shard.Descriptor{Replicas: []shard.Replica{{ID: 1, Node: 1}}, NextReplicaID: 2, PreferredNode: 1}
	c := &placementpb.InitCluster{ClusterId: 9, ReplicationFactor: 1, Meta: meta.Proto(), Nodes: []*placementpb.Node{
		{NodeId: 1, Name: "n1", PeerAddr: "127.0.0.1:1", AdminAddr: "127.0.0.1:3", Incarnation: []byte("secret"), ClientUrls: []string{"http://127.0.0.1:2"}},
	}}
	require.NoError(t, placement.ResultError(state.Apply(&placementpb.Command{Body: &placementpb.Command_InitCluster{InitCluster: c}})))
	return state
}

// exchange sends one frame and returns the replies, by request.
func (h *harness) exchange(t *testing.T, frame *routerpb.Frame) ([]*routerpb.Reply, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := routerpb.NewNativeClient(h.conn).Exchange(h.as(ctx), grpc.ForceCodecV2(peer.Codec()))
	require.NoError(t, err)
	for i, r := range frame.Requests {
		r.Id = uint64(i)
	}
	require.NoError(t, stream.Send(frame))
	replies := make([]*routerpb.Reply, len(frame.Requests))
	for got := 0; got < len(replies); {
		in, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		for _, r := range in.Replies {
			replies[r.Id] = r
			got++
		}
	}
	return replies, nil
}

func body(t *testing.T, m proto.Message) []byte {
	data, err := proto.Marshal(m)
	require.NoError(t, err)
	return data
}

func write(kind shardpb.Kind, data []byte) *routerpb.Request {
	return &routerpb.Request{Shard: 2, Op: routerpb.Op_OP_WRITE, Command: &shardpb.Command{Kind: kind, Epoch: 1, Body: data}}
}

func read(op routerpb.Op, data []byte) *routerpb.Request {
	return &routerpb.Request{Shard: 2, Op: op, Body: data}
}

// V1: what no user may ask reaches no replica, whatever it is dressed up as.
func TestHostileFrames(t *testing.T) {
	h := serve(t)
	put := body(t, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")})
	writes := body(t, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k")}}}}})
	frame := &routerpb.Frame{}
	add := func(r *routerpb.Request) { frame.Requests = append(frame.Requests, r) }
	for number := range shardpb.Kind_name {
		switch kind := shardpb.Kind(number); kind {
		case shardpb.Kind_PUT, shardpb.Kind_DELETE_RANGE, shardpb.Kind_TXN, shardpb.Kind_CLOSE:
		default:
			add(write(kind, put))
		}
	}
	add(write(99, put))
	for number := range routerpb.Op_name {
		switch op := routerpb.Op(number); op {
		case routerpb.Op_OP_HASH, routerpb.Op_OP_UNKNOWN:
			add(read(op, nil))
		}
	}
	add(read(77, nil))
	add(read(routerpb.Op_OP_WRITE, put))                                // no command
	add(read(routerpb.Op_OP_TXN, writes))                               // a write that says it is a read
	add(read(routerpb.Op_OP_RANGE, []byte("\xff\xff\xff")))             // no range
	add(read(routerpb.Op_OP_RANGE, nil))                                // no key
	add(write(shardpb.Kind_PUT, []byte("\xff\xff\xff")))                // no put
	add(write(shardpb.Kind_PUT, []byte{1<<3 | 2, 1, 'k', 1<<3 | 2, 0})) // a key, and then none
	add(write(shardpb.Kind_PUT, body(t, &pb.PutRequest{Key: []byte("k"), Value: []byte("v"), IgnoreValue: true})))
	add(write(shardpb.Kind_PUT, nil))                                                                       // no key
	add(write(shardpb.Kind_PUT, body(t, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 1536*1024)}))) // too large
	add(write(shardpb.Kind_TXN, body(t, deep(200))))                                                        // too deep
	future := write(shardpb.Kind_CLOSE, nil)
	future.Command.Revision = 1 << 60
	add(future)
	add(read(routerpb.Op_OP_LEASE_KEEPALIVE, body(t, &routerpb.LeaseQuery{Leases: make([]int64, router.RenewalsMax+1)})))
	for _, relay := range []uint64{0, self, self + 1} { // nobody's, here or elsewhere
		for _, r := range frame.Requests {
			r.Relay = relay
		}
		replies, err := h.exchange(t, frame)
		require.NoError(t, err)
		for i, r := range replies {
			require.NotEqual(t, routerpb.Code_OK, r.Code, "request %d: %v", i, frame.Requests[i])
			require.NotEqual(t, routerpb.Code_UNKNOWN_OUTCOME, r.Code, "a refusal is certain: %v", frame.Requests[i])
		}
	}
	require.Empty(t, h.replicas.all())
	require.Empty(t, h.routed.elsewhere.all())
}

// deep is a transaction in a transaction, and so on.
func deep(n int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range n {
		t = &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}}}
	}
	return t
}

// V1: of a command, only what is the client's to say reaches the replica.
func TestCommandsAreMadeAnew(t *testing.T) {
	h := serve(t)
	put := write(shardpb.Kind_PUT, body(t, &pb.PutRequest{Key: []byte("k")}))
	put.Command.Descriptor_ = &shardpb.Descriptor{ShardId: 2}
	put.Command.Child = &shardpb.Descriptor{ShardId: 3}
	put.Command.Stamp, put.Command.Revision, put.Grows = 1<<50, 1<<50, false
	del := write(shardpb.Kind_DELETE_RANGE, body(t, &pb.DeleteRangeRequest{Key: []byte("k")}))
	del.Grows, del.Promise = true, true
	replies, err := h.exchange(t, &routerpb.Frame{Requests: []*routerpb.Request{put, del}})
	require.NoError(t, err)
	require.Equal(t, routerpb.Code_OK, replies[0].Code)
	got := h.replicas.all()
	require.True(t, proto.Equal(&shardpb.Command{Kind: shardpb.Kind_PUT, Epoch: 1, Body: put.Command.Body}, got[0].Command), "%v", got[0].Command)
	require.True(t, got[0].Grows, "whether there is space is not for the client to say")
	require.False(t, got[1].Grows)
	require.False(t, got[1].Promise)
}

// V2: revisions from the future are not believed, those of now are.
func TestTimeIsNotTheClients(t *testing.T) {
	h := serve(t)
	now := shard.TickAt(h.clock.now)
	probe := func(highest shard.Revision) {
		_, err := h.exchange(t, &routerpb.Frame{Requests: []*routerpb.Request{read(routerpb.Op_OP_PROBE, nil)}, HighestRevision: int64(highest)})
		require.NoError(t, err)
	}
	probe(1 << 60)
	require.Zero(t, h.seen.Seen())
	late := shard.TickAt(h.clock.now.Add(time.Hour)).Revision()
	probe(late)
	require.Zero(t, h.seen.Seen())
	probe(now.Revision())
	require.Equal(t, now.Revision(), h.seen.Seen(), "what the client has read is below what it writes next")
	reserved := (shard.TickAt(h.clock.now.Add(time.Second)) + shard.ReserveAhead).Revision()
	probe((reserved.Tick() + 2).Revision())
	require.Equal(t, now.Revision(), h.seen.Seen())
	probe(reserved)
	require.Equal(t, reserved, h.seen.Seen(), "as another clock says, and after a change of leaders")

	closing := write(shardpb.Kind_CLOSE, nil)
	closing.Command.Revision = int64(late)
	replies, err := h.exchange(t, &routerpb.Frame{Requests: []*routerpb.Request{closing}})
	require.NoError(t, err)
	require.Equal(t, routerpb.Code_STATUS, replies[0].Code)
	require.Equal(t, uint32(codes.InvalidArgument), replies[0].Status)
	h.seen.Observe(late) // a node whose clock is wrong has minted it
	replies, err = h.exchange(t, &routerpb.Frame{Requests: []*routerpb.Request{closing}})
	require.NoError(t, err)
	require.Equal(t, routerpb.Code_OK, replies[0].Code)
}

// V3: too many requests in a frame end the stream; too many under way are refused, and what
// comes behind them is carried out.
func TestStreamsAreBounded(t *testing.T) {
	h := serve(t)
	frame := &routerpb.Frame{}
	for range 2000 {
		frame.Requests = append(frame.Requests, read(routerpb.Op_OP_PROBE, nil))
	}
	_, err := h.exchange(t, frame)
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	require.Empty(t, h.replicas.all())

	h.replicas.write = func(*router.Request, router.Ender) {} // never answers
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := routerpb.NewNativeClient(h.conn).Exchange(ctx, grpc.ForceCodecV2(peer.Codec()))
	require.NoError(t, err)
	const most, beyond, each = 8192, 300, 500
	frame = &routerpb.Frame{}
	for i := range most + beyond + 1 {
		r := write(shardpb.Kind_PUT, body(t, &pb.PutRequest{Key: []byte("k")}))
		if i%2 == 0 {
			r = write(shardpb.Kind_CLOSE, nil)
		}
		if i == most+beyond {
			r = read(routerpb.Op_OP_PROBE, nil)
		}
		r.Id = uint64(i)
		if frame.Requests = append(frame.Requests, r); len(frame.Requests) == each || i == most+beyond {
			require.NoError(t, stream.Send(frame))
			frame = &routerpb.Frame{}
		}
	}
	for answered := 0; answered < beyond+1; {
		in, err := stream.Recv()
		require.NoError(t, err)
		for _, r := range in.Replies {
			require.GreaterOrEqual(t, r.Id, uint64(most))
			want := routerpb.Code_OVERLOADED
			if r.Id == most+beyond {
				want = routerpb.Code_OK
			}
			require.Equal(t, want, r.Code)
			answered++
		}
	}
	require.Len(t, h.replicas.all(), most+1, "the read too")
}

// V3: a write that the node's router carries out is under way until that answers.
func TestRoutedWritesAreBounded(t *testing.T) {
	h := serve(t)
	h.routed.wait = make(chan struct{})
	defer close(h.routed.wait)
	h.replicas.write = func(_ *router.Request, end router.Ender) {
		end.End(nil, &shard.UnregisteredLeaseError{Shard: 2, Lease: 5, Fence: 1})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := routerpb.NewNativeClient(h.conn).Exchange(ctx, grpc.ForceCodecV2(peer.Codec()))
	require.NoError(t, err)
	const most, each = 8192, 512
	put := body(t, &pb.PutRequest{Key: []byte("k"), Lease: 5})
	for sent := 0; sent < most+1; {
		frame := &routerpb.Frame{}
		for ; len(frame.Requests) < each && sent < most+1; sent++ {
			r := write(shardpb.Kind_PUT, put)
			r.Id = uint64(sent)
			frame.Requests = append(frame.Requests, r)
		}
		require.NoError(t, stream.Send(frame))
	}
	in, err := stream.Recv()
	require.NoError(t, err)
	require.Equal(t, []any{uint64(most), routerpb.Code_OVERLOADED}, []any{in.Replies[0].Id, in.Replies[0].Code})
}

// V3: a node that has no room refuses. A close needs the room of the read that waits for it, and what leases wait for needs none;
// what was answered, however, has left.
func TestNodesAreBounded(t *testing.T) {
	h := serve(t)
	var taken []admission.Place
	fill := func(c admission.Class) (n int) {
		for {
			p, err := h.room.Take(c, 0)
			if err != nil {
				return n
			}
			taken, n = append(taken, p), n+1
		}
	}
	codes := func() (out []routerpb.Code) {
		replies, err := h.exchange(t, &routerpb.Frame{Requests: []*routerpb.Request{
			write(shardpb.Kind_PUT, body(t, &pb.PutRequest{Key: []byte("k")})),
			write(shardpb.Kind_PUT, nil), // refused otherwise
			write(shardpb.Kind_CLOSE, nil),
			read(routerpb.Op_OP_PROBE, nil),
			read(routerpb.Op_OP_LEASE_KEEPALIVE, body(t, &routerpb.LeaseQuery{Leases: []int64{1}})),
		}})
		require.NoError(t, err)
		for _, r := range replies {
			out = append(out, r.Code)
		}
		return out
	}
	const ok, full, refused = routerpb.Code_OK, routerpb.Code_OVERLOADED, routerpb.Code_STATUS
	require.Equal(t, []routerpb.Code{ok, refused, ok, ok, ok}, codes())
	writes := fill(admission.Write)
	require.Equal(t, []routerpb.Code{full, full, ok, ok, ok}, codes())
	reads := fill(admission.Read)
	require.Equal(t, []routerpb.Code{full, full, full, full, ok}, codes())
	for _, p := range taken {
		p.Leave()
	}
	require.Equal(t, []routerpb.Code{ok, refused, ok, ok, ok}, codes())
	require.Equal(t, writes, fill(admission.Write))
	require.Equal(t, reads, fill(admission.Read))
}

// V4: a shard that does not know the lease is told by the node.
func TestLeasesAreMadeKnownByTheNode(t *testing.T) {
	h := serve(t)
	h.replicas.write = func(_ *router.Request, end router.Ender) {
		end.End(nil, fmt.Errorf("refused: %w", &shard.UnregisteredLeaseError{Shard: 2, Lease: 5, Fence: 1}))
	}
	replies, err := h.exchange(t, &routerpb.Frame{Requests: []*routerpb.Request{
		write(shardpb.Kind_PUT, body(t, &pb.PutRequest{Key: []byte("k"), Lease: 5})),
		write(shardpb.Kind_TXN, body(t, &pb.TxnRequest{})),
		write(shardpb.Kind_DELETE_RANGE, body(t, &pb.DeleteRangeRequest{Key: []byte("k")})),
	}})
	require.NoError(t, err)
	require.Equal(t, int64(1005), replies[0].Revision, "the router's answer")
	require.Equal(t, routerpb.Code_LEASE_NOT_FOUND, replies[1].Code)
	require.Equal(t, routerpb.Code_STATUS, replies[2].Code)
}

// V5: where keys and nodes are, and no more.
func TestFollowShards(t *testing.T) {
	h := serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	follow := func(req *routerpb.FollowShardsRequest) *routerpb.ShardsUpdate {
		stream, err := routerpb.NewNativeClient(h.conn).FollowShards(ctx, req)
		require.NoError(t, err)
		u, err := stream.Recv()
		require.NoError(t, err)
		return u
	}
	whole := follow(&routerpb.FollowShardsRequest{})
	first, _ := h.newest()
	want := &routerpb.ShardsUpdate{
		Version: first.Version(), ClusterId: 9, Whole: true, Shards: []*shardpb.Descriptor{first.Shard(2).Proto()},
		Nodes: []*routerpb.NodeAddress{{NodeId: 1, ClientUrls: []string{"http://127.0.0.1:2"}}},
	}
	require.True(t, proto.Equal(want, whole), "%v", whole)
	require.True(t, proto.Equal(whole, follow(&routerpb.FollowShardsRequest{Version: 100, ClusterId: 4})), "the version of another cluster means nothing")

	stream, err := routerpb.NewNativeClient(h.conn).FollowShards(ctx, &routerpb.FollowShardsRequest{Version: whole.Version, ClusterId: 9})
	require.NoError(t, err)
	next := func(nodes ...*routerpb.NodeAddress) {
		t.Helper()
		u, err := stream.Recv()
		require.NoError(t, err)
		now, _ := h.newest()
		want := &routerpb.ShardsUpdate{Version: now.Version(), ClusterId: 9, Nodes: nodes}
		require.True(t, proto.Equal(want, u), "%v", u)
	}
	h.change(t, &placementpb.Command{Body: &placementpb.Command_AddNode{AddNode: &placementpb.AddNode{Node: &placementpb.Node{
		Name: "n2", PeerAddr: "127.0.0.1:4", Incarnation: []byte("n2"), ClientUrls: []string{"http://127.0.0.1:5"},
	}}}})
	next(&routerpb.NodeAddress{NodeId: 2, ClientUrls: []string{"http://127.0.0.1:5"}})
	h.change(t, placement.Remove(2))
	next(&routerpb.NodeAddress{NodeId: 2}) // nobody goes there any more
	h.change(t, placement.Set("secret", "s"))
	next()
}

func TestSubscribeRefuses(t *testing.T) {
	h := serve(t)
	subscribe := func(from int64) (*routerpb.ChangesFrame, error) {
		stream, err := routerpb.NewNativeClient(h.conn).Subscribe(t.Context(), &routerpb.SubscribeRequest{Shard: 2, From: from}, grpc.ForceCodecV2(peer.Codec()))
		require.NoError(t, err)
		return stream.Recv()
	}
	_, err := subscribe(0)
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	frame, err := subscribe(5)
	require.NoError(t, err)
	require.Equal(t, routerpb.Code_COMPACTED, frame.Error.GetCode(), "%v", frame)
}

// told is a feed that has an event whenever it is polled.
type told struct {
	router.Feed
	rev shard.Revision
}

func (f *told) Poll(int) (shard.Changes, error) {
	f.rev++
	return shard.Changes{Events: []*mvccpb.Event{{Kv: &mvccpb.KeyValue{Key: []byte("a"), ModRevision: int64(f.rev)}}}, Through: f.rev}, nil
}

func (f *told) Await(shard.Revision) {}
func (f *told) Close()               {}

func executing(e peer.Executor) func(context.Context) peer.Executor {
	return func(context.Context) peer.Executor { return e }
}
