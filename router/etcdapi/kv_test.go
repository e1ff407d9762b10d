package etcdapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/txn"
)

func TestKVThroughClientv3(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	put, err := f.client.Put(ctx, "a", "1")
	require.NoError(t, err)
	require.EqualValues(t, 2, put.Header.Revision)
	require.EqualValues(t, 0xC1, put.Header.ClusterId)
	require.EqualValues(t, 0xA1, put.Header.MemberId)
	require.EqualValues(t, 7, put.Header.RaftTerm)

	get, err := f.client.Get(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, "1", string(get.Kvs[0].Value))
	require.EqualValues(t, 0xA1, get.Header.MemberId)

	txn, err := f.client.Txn(ctx).Then(clientv3.OpPut("b", "2"), clientv3.OpGet("a")).Commit()
	require.NoError(t, err)
	require.EqualValues(t, 0xA1, txn.Header.MemberId)
	// As in etcd, headers inside have the revision only.
	require.True(t, proto.Equal(&pb.ResponseHeader{Revision: txn.Header.Revision}, txn.Responses[0].GetResponsePut().Header))

	del, err := f.client.Delete(ctx, "a")
	require.NoError(t, err)
	require.EqualValues(t, 1, del.Deleted)
	require.EqualValues(t, 7, del.Header.RaftTerm)

	compact, err := f.client.Compact(ctx, 2)
	require.NoError(t, err)
	require.EqualValues(t, 0xC1, compact.Header.ClusterId)
}

func TestRangeStream(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	for i := range 3 {
		_, err := f.client.Put(ctx, fmt.Sprintf("k%d", i), "v")
		require.NoError(t, err)
	}
	kv := pb.NewKVClient(f.client.ActiveConnection())
	stream, err := kv.RangeStream(ctx, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
	require.NoError(t, err)
	var whole pb.RangeResponse
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Nil(t, whole.Header, "only the last part has a header")
		proto.Merge(&whole, part.RangeResponse)
	}
	require.Len(t, whole.Kvs, 3)
	require.EqualValues(t, 3, whole.Count)
	require.True(t, proto.Equal(&pb.ResponseHeader{ClusterId: 0xC1, MemberId: 0xA1, RaftTerm: 7, Revision: 4}, whole.Header))
}

func TestRangeStreamRefuses(t *testing.T) {
	const order, filter = "RangeStream does not support custom sort orders", "RangeStream does not support revision filters"
	for _, tc := range []struct {
		req     *pb.RangeRequest
		message string
	}{
		{&pb.RangeRequest{SortOrder: pb.RangeRequest_DESCEND}, order},
		{&pb.RangeRequest{SortOrder: pb.RangeRequest_ASCEND, SortTarget: pb.RangeRequest_VALUE}, order},
		{&pb.RangeRequest{SortOrder: pb.RangeRequest_ASCEND}, ""},
		{&pb.RangeRequest{SortTarget: pb.RangeRequest_VALUE}, ""},
		{&pb.RangeRequest{MinModRevision: 1}, filter},
		{&pb.RangeRequest{MaxModRevision: 1}, filter},
		{&pb.RangeRequest{MinCreateRevision: 1}, filter},
		{&pb.RangeRequest{MaxCreateRevision: 1}, filter},
	} {
		tc.req.Key = []byte("k")
		err := checkRangeStream(tc.req)
		if tc.message == "" {
			require.NoError(t, err)
			continue
		}
		require.Equal(t, status.Error(codes.Unimplemented, tc.message), err)
	}
}

func TestRefusalsBeforeAnythingHappens(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	ops := func(n int) []clientv3.Op {
		var out []clientv3.Op
		for i := range n {
			out = append(out, clientv3.OpPut(fmt.Sprint(i), ""))
		}
		return out
	}
	raw := pb.NewKVClient(f.client.ActiveConnection())
	for name, tc := range map[string]struct {
		call func() error
		want error
	}{
		"put empty key": {func() error { _, err := f.client.Put(ctx, "", "v"); return err }, rpctypes.ErrEmptyKey},
		"get empty key": {func() error { _, err := raw.Range(ctx, &pb.RangeRequest{}); return err }, rpctypes.ErrEmptyKey},
		"delete empty key": {func() error {
			_, err := raw.DeleteRange(ctx, &pb.DeleteRangeRequest{})
			return err
		}, rpctypes.ErrEmptyKey},
		"ignore value with value": {func() error {
			_, err := f.client.Put(ctx, "k", "v", clientv3.WithIgnoreValue())
			return err
		}, rpctypes.ErrValueProvided},
		"sort order": {func() error {
			_, err := raw.Range(ctx, &pb.RangeRequest{Key: []byte("k"), SortOrder: 9})
			return err
		}, rpctypes.ErrInvalidSortOption},
		"sort target": {func() error {
			_, err := raw.Range(ctx, &pb.RangeRequest{Key: []byte("k"), SortTarget: 9})
			return err
		}, rpctypes.ErrInvalidSortOption},
		"stream empty key": {func() error {
			s, err := raw.RangeStream(ctx, &pb.RangeRequest{})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		}, rpctypes.ErrEmptyKey},
		"129 ops": {func() error { _, err := f.client.Txn(ctx).Then(ops(129)...).Commit(); return err }, rpctypes.ErrTooManyOps},
		"duplicate key": {func() error {
			_, err := f.client.Txn(ctx).Then(clientv3.OpPut("k", "1"), clientv3.OpPut("k", "2")).Commit()
			return err
		}, rpctypes.ErrDuplicateKey},
	} {
		require.Equal(t, tc.want, rpctypes.Error(tc.call()), name)
	}
	require.Zero(t, f.kv.calls())

	_, err := f.client.Txn(ctx).Then(ops(128)...).Commit()
	require.NoError(t, err)
}

func TestRequestSize(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	// What etcd would log: its own message, around the request, with a long ID.
	logged := func(req *pb.PutRequest) int {
		return proto.Size(&pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 1 << 63}, Put: req})
	}
	req := &pb.PutRequest{Key: []byte("k"), Value: make([]byte, txn.DefaultMaxRequestBytes)}
	req.Value = req.Value[:2*txn.DefaultMaxRequestBytes-logged(req)]
	require.Equal(t, txn.DefaultMaxRequestBytes, logged(req))
	require.Equal(t, logged(req), txn.LoggedBytes(proto.Size(req)))

	raw := pb.NewKVClient(f.client.ActiveConnection())
	_, err := raw.Put(ctx, req)
	require.NoError(t, err, "exactly 1.5 MiB fits")
	req.Value = append(req.Value, 0)
	_, err = raw.Put(ctx, req)
	require.Equal(t, rpctypes.ErrRequestTooLarge, rpctypes.Error(err))

	large := strings.Repeat("x", txn.DefaultMaxRequestBytes)
	_, err = f.client.Put(ctx, "k", large)
	require.Equal(t, rpctypes.ErrRequestTooLarge, err)
	_, err = f.client.Delete(ctx, large)
	require.Equal(t, rpctypes.ErrRequestTooLarge, err)
	_, err = f.client.Txn(ctx).Then(clientv3.OpPut("k", large)).Commit()
	require.Equal(t, rpctypes.ErrRequestTooLarge, err)
	_, err = f.client.Txn(ctx).If(clientv3.Compare(clientv3.Value("k"), "=", large)).Then(clientv3.OpGet("k")).Commit()
	require.NoError(t, err, "what only reads is not logged")

	// Beyond the limit of messages gRPC refuses, as with etcd.
	_, err = raw.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, txn.DefaultMaxRequestBytes+messageOverheadBytes)})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
}

func TestGarbageOnThePortHarmsNobody(t *testing.T) {
	f := newFace(t)
	for _, garbage := range []string{"\x00\x01\x02", "hello\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage after the preface", "GET garbage\r\n\r\n"} {
		c, err := net.Dial("tcp", f.addr)
		require.NoError(t, err)
		_, err = c.Write([]byte(garbage))
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, c) // ends when the server closes
		require.NoError(t, c.Close())
	}
	_, err := f.client.Put(context.Background(), "k", "v")
	require.NoError(t, err)
}
