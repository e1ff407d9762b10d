package router_test

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// relays records what is sent to nodes, and answers when it is told to.
type relays struct {
	mu   sync.Mutex
	sent []*router.Request
	ends []router.Ender
}

func (s *relays) Send(_ context.Context, _ shard.NodeID, req *router.Request) (*router.Reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, req)
	return &router.Reply{Rev: 9, Message: &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Value: make([]byte, 1000)}}}}, nil
}

// counted is a listing.Room.
type counted struct {
	bytes int
	full  error
}

func (c *counted) Add(n int) error {
	c.bytes += n
	return c.full
}

func (s *relays) Start(_ shard.NodeID, req *router.Request, end router.Ender) router.Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent, s.ends = append(s.sent, req), append(s.ends, end)
	return nil
}

func (s *relays) Told(_ shard.NodeID, err error) error { return err }

// T8, T9: a relayed write is admitted as the node's own, carries no order to relay it again, and is never sent a second time. If its
// client has left while it waited, it is not sent at all.
func TestRelayedWrites(t *testing.T) {
	s := &relays{}
	r := router.New(router.Config{Sender: s, Starter: s, Lanes: admission.NewLanes(nil, admission.Bounds{})})
	defer r.Close()
	var outcomes []error
	relay := func(ctx context.Context, kind shardpb.Kind) {
		req := &router.Request{Shard: 5, Op: routerpb.Op_OP_WRITE, Command: &shardpb.Command{Kind: kind}, Relay: 3}
		r.RelayWrite(ctx, 3, req, router.EndFunc(func(_ *router.Reply, err error) { outcomes = append(outcomes, err) }))
	}
	gone, leave := context.WithCancel(t.Context())
	asked := 0
	for ; asked == len(s.sent); asked++ { // until one waits
		require.Less(t, asked, 10000, "there is a limit")
		relay(t.Context(), shardpb.Kind_PUT)
	}
	under := len(s.sent)
	relay(gone, shardpb.Kind_TXN)
	require.Len(t, s.sent, under)
	relay(t.Context(), shardpb.Kind_CLOSE)
	require.Len(t, s.sent, under+1, "a read waits for it")
	for _, req := range s.sent {
		require.Zero(t, req.Relay)
	}
	leave()
	s.ends[0].End(nil, shard.ErrUnavailable)
	require.Len(t, s.sent, under+2, "the one that waited first has its turn; the failed one is not sent again")
	s.ends[1].End(&router.Reply{}, nil)
	require.Len(t, s.sent, under+2, "the client of the second has left")
	require.ErrorIs(t, outcomes[0], shard.ErrUnavailable)
	require.Contains(t, outcomes, shard.ErrStopped)

	read := &router.Request{Shard: 5, Op: routerpb.Op_OP_PROBE, Relay: 3}
	reply, err := r.Relay(t.Context(), 3, read)
	require.NoError(t, err)
	require.Equal(t, shard.Revision(9), reply.Rev)
	require.Zero(t, read.Relay)

	// T10: the answer takes room here.
	room := &counted{}
	list := &router.Request{Shard: 5, Op: routerpb.Op_OP_FETCH, Room: room}
	_, err = r.Relay(t.Context(), 3, list)
	require.NoError(t, err)
	require.Greater(t, room.bytes, 1000)
	room.full = admission.ErrTurn
	reply, err = r.Relay(t.Context(), 3, list)
	require.ErrorIs(t, err, admission.ErrTurn)
	require.Nil(t, reply, "whoever waits for its turn would keep it")
}
