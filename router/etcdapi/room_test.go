package etcdapi

import (
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/router/admission"
)

// E6: a node that has no room refuses, with etcd's error, what reads and writes keys before
// anything of it is looked at. What keeps or ends leases, and what operators ask for, goes on.
func TestNoRoom(t *testing.T) {
	room := admission.NewRoom(nil, admission.Bounds{})
	f := newFaceOf(t, Config{Room: room})
	ctx := t.Context()
	lease, err := f.client.Grant(ctx, 60)
	require.NoError(t, err)

	var taken []admission.Place
	fill := func(c admission.Class) {
		for {
			p, err := room.Take(c, 0)
			if err != nil {
				return
			}
			taken = append(taken, p)
		}
	}
	fill(admission.Write)
	_, err = f.client.Put(ctx, "", "an empty key is refused otherwise")
	require.Equal(t, rpctypes.ErrTooManyRequests, err)
	_, err = f.client.Delete(ctx, "k")
	require.Equal(t, rpctypes.ErrTooManyRequests, err)
	_, err = f.client.Txn(ctx).Then(clientv3.OpPut("k", "v")).Commit()
	require.Equal(t, rpctypes.ErrTooManyRequests, err)
	_, err = f.client.Grant(ctx, 60)
	require.Equal(t, rpctypes.ErrTooManyRequests, err)
	require.Zero(t, f.kv.calls())

	_, err = f.client.Get(ctx, "k")
	require.NoError(t, err, "reads have room of their own")
	_, err = f.client.Txn(ctx).Then(clientv3.OpGet("k")).Commit()
	require.NoError(t, err)
	fill(admission.Read)
	_, err = f.client.Get(ctx, "k")
	require.Equal(t, rpctypes.ErrTooManyRequests, err)
	stream, err := pb.NewKVClient(f.client.ActiveConnection()).RangeStream(ctx, &pb.RangeRequest{Key: []byte("k")})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, rpctypes.ErrTooManyRequests, rpctypes.Error(err))

	_, err = f.client.KeepAliveOnce(ctx, lease.ID)
	require.NoError(t, err)
	_, err = f.client.Revoke(ctx, lease.ID)
	require.NoError(t, err)
	_, err = f.client.Status(ctx, f.addr)
	require.NoError(t, err)

	for _, p := range taken {
		p.Leave()
	}
	_, err = f.client.Put(ctx, "", "")
	require.Equal(t, rpctypes.ErrEmptyKey, err)
	stream, err = pb.NewKVClient(f.client.ActiveConnection()).RangeStream(ctx, &pb.RangeRequest{Key: []byte("k")})
	require.NoError(t, err)
	for !errors.Is(err, io.EOF) {
		_, err = stream.Recv()
		require.True(t, err == nil || errors.Is(err, io.EOF), "%v", err)
	}
	requireEmpty(t, room) // whoever was answered, well or not, has left
}

// requireEmpty makes sure that all of the room is free.
func requireEmpty(t *testing.T, room *admission.Room) {
	t.Helper()
	places := 0
	for {
		p, err := room.Take(admission.Read, 0)
		if err != nil {
			break
		}
		defer p.Leave()
		places++
	}
	require.Equal(t, 16<<10, places)
}
