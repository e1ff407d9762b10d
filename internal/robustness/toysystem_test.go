package robustness_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/internal/ports"
	"github.com/flotilla-kv/flotilla/internal/robustness"
)

// toySystem serves one toyStore from several "nodes" of this process. A killed node
// stops listening; what a paused one holds is applied when it goes on, long after its
// client has given up.
type toySystem struct {
	robustness.Fixed
	store *toyStore
	nodes []*toyNode
}

type toyNode struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	pb.UnimplementedLeaseServer
	index int
	addr  string
	store *toyStore

	mu     sync.Mutex
	server *grpc.Server
	socket net.Listener
	gate   chan struct{} // closed while the node is not paused
}

func newToySystem(t *testing.T, bug string) *toySystem {
	sys := &toySystem{store: newToyStore(bug)}
	for i := range replicas {
		open := make(chan struct{})
		close(open)
		port, err := ports.Lease() // it is listened on again after a kill
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, port.Release()) })
		sys.nodes = append(sys.nodes, &toyNode{index: i, addr: port.Addr(), store: sys.store, gate: open})
		require.NoError(t, sys.Start(i))
		t.Cleanup(func() {
			require.NoError(t, sys.Resume(i))
			require.NoError(t, sys.Kill(i))
		})
	}
	return sys
}

func (s *toySystem) Endpoints() []string {
	var out []string
	for _, n := range s.nodes {
		out = append(out, n.addr)
	}
	return out
}

func (s *toySystem) Start(node int) error {
	n := s.nodes[node]
	l, err := net.Listen("tcp", n.addr)
	if err != nil {
		return fmt.Errorf("start toy node %d: %w", node, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.server, n.socket = grpc.NewServer(), l
	pb.RegisterKVServer(n.server, n)
	pb.RegisterWatchServer(n.server, n)
	pb.RegisterLeaseServer(n.server, n)
	server := n.server
	go func() { _ = server.Serve(l) }() // ends with Kill, which is what stops it
	return nil
}

func (s *toySystem) Kill(node int) error {
	n := s.nodes[node]
	n.mu.Lock()
	server, socket := n.server, n.socket
	n.mu.Unlock()
	server.Stop()
	_ = socket.Close() // most likely it is; not if the server was stopped before it began
	return nil
}

func (s *toySystem) Pause(node int) error {
	n := s.nodes[node]
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gate = make(chan struct{})
	return nil
}

func (s *toySystem) Resume(node int) error {
	n := s.nodes[node]
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.gate:
	default:
		close(n.gate)
	}
	return nil
}

func (s *toySystem) WaitReady(context.Context) error { return nil }

func (s *toySystem) Crashes() []string { return nil }

// pass waits while the node is paused.
func (n *toyNode) pass() {
	n.mu.Lock()
	gate := n.gate
	n.mu.Unlock()
	<-gate
}

func (n *toyNode) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	n.pass()
	n.store.mu.Lock()
	defer n.store.mu.Unlock()
	n.store.expire()
	return n.store.read(r)
}

func (n *toyNode) Txn(_ context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	n.pass()
	resp, err := n.store.txn(n.index, r)
	if err != nil || n.store.bug != "two revisions" || n.index == 0 {
		return resp, err
	}
	resp.Header.Revision += int64(n.index) // what this node would have made of its own clock
	return resp, nil
}

func (n *toyNode) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	resp, err := n.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: r}}}})
	if err != nil {
		return nil, err
	}
	return &pb.PutResponse{Header: resp.Header}, nil
}

func (n *toyNode) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	resp, err := n.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}}})
	if err != nil {
		return nil, err
	}
	return &pb.DeleteRangeResponse{Header: resp.Header, Deleted: resp.Responses[0].GetResponseDeleteRange().Deleted}, nil
}
