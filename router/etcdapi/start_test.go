package etcdapi

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/shard"
)

// Writes are answered by whoever knows what became of them, in any order, and leave the node's room then.
func TestStartedWritesAreAnsweredInAnyOrder(t *testing.T) {
	room := admission.NewRoom(nil, admission.Bounds{})
	f := newFaceOf(t, Config{Room: room})
	f.kv.held = make(chan *heldPut, 100)
	outcomes := make(map[string]chan error)
	for i := range 100 {
		key, outcome := fmt.Sprint(i), make(chan error, 1)
		outcomes[key] = outcome
		go func() {
			_, err := f.client.Put(t.Context(), key, "")
			outcome <- err
		}()
	}
	var held []*heldPut
	for range 100 {
		held = append(held, <-f.kv.held)
	}
	for i, h := range held {
		outcome := outcomes[string(h.req.Key)]
		require.Empty(t, outcome)
		if i%2 == 0 {
			h.done(&pb.PutResponse{Header: &pb.ResponseHeader{Revision: 7}}, nil)
			require.NoError(t, <-outcome)
		} else {
			h.done(nil, shard.ErrUnknownOutcome)
			require.Equal(t, rpctypes.ErrTimeout, <-outcome)
		}
	}
	requireEmpty(t, room)
}

// A write whose client has left is abandoned, once, and keeps its room until that is known.
func TestAWriteWhoseClientHasLeftIsAbandoned(t *testing.T) {
	room := admission.NewRoom(nil, admission.Bounds{})
	f := newFaceOf(t, Config{Room: room})
	f.kv.held = make(chan *heldPut, 1)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := f.client.Put(ctx, "k", "")
		left <- err
	}()
	h := <-f.kv.held
	cancel()
	require.ErrorIs(t, <-left, context.Canceled)
	require.ErrorIs(t, <-h.abandoned, context.Canceled)
	h.done(nil, shard.ErrUnknownOutcome)
	requireEmpty(t, room)
	require.Empty(t, h.abandoned)
}
