package node_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/snapfile"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
)

// apart starts two nodes with one replica of each shard, and returns the node that has the shard of the key, and the
// other one.
func apart(t *testing.T, o testcluster.Options, key string) (c *testcluster.Cluster, home, far *testcluster.Node) {
	t.Helper()
	edit := o.Edit
	o.Nodes, o.Edit = 2, func(name string, cfg *node.Config) {
		cfg.ReplicationFactor = 1
		if edit != nil {
			edit(name, cfg)
		}
	}
	c = testcluster.Start(t, o)
	d := c.Node(1).Inside().Map().Lookup([]byte(key))
	require.Len(t, d.Replicas, 1)
	home, far = c.Node(1), c.Node(2)
	if d.Replicas[0].Node != home.Inside().ID() {
		home, far = far, home
	}
	return c, home, far
}

// However suddenly values become large, and however many there are, a node makes lists, streams and snapshots of a shard on
// another node: nothing that this one sends is larger than nodes accept.
func TestValuesThatGrowSuddenly(t *testing.T) {
	t.Parallel()
	const small, large, most = 1000, 66, 60 << 20
	c, home, far := apart(t, testcluster.Options{}, "k")
	client := c.Client(t, home)
	for i := range small / 100 {
		var ops []clientv3.Op
		for j := range 100 {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("k/a/%04d", 100*i+j), "v"))
		}
		_, err := client.Txn(t.Context()).Then(ops...).Commit()
		require.NoError(t, err)
	}
	value := bytes.Repeat([]byte("v"), 1<<20)
	for i := range large {
		put(t, client, fmt.Sprintf("k/b/%04d", i), string(value))
	}
	require.Greater(t, large*len(value), most)
	list := &pb.RangeRequest{Key: []byte("k/"), RangeEnd: []byte("k0")}

	near := pb.NewKVClient(c.Client(t, home).ActiveConnection())
	away := c.Client(t, far)
	want, err := near.Range(t.Context(), list, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	require.NoError(t, err)
	require.Len(t, want.Kvs, small+large)

	got, err := away.Get(t.Context(), "k/", clientv3.WithPrefix())
	require.NoError(t, err)
	requireKeys(t, want.Kvs, got.Kvs)
	require.Equal(t, []any{want.Count, want.Header.Revision}, []any{got.Count, got.Header.Revision})
	got, err = away.Get(t.Context(), "k/", clientv3.WithPrefix(), clientv3.WithLimit(small+large-1))
	require.NoError(t, err)
	requireKeys(t, want.Kvs[:small+large-1], got.Kvs)
	require.Equal(t, []any{int64(small + large), true}, []any{got.Count, got.More})

	stream, err := pb.NewKVClient(away.ActiveConnection()).RangeStream(t.Context(), list)
	require.NoError(t, err)
	var streamed []*mvccpb.KeyValue
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Less(t, proto.Size(resp), 192<<10+len(value)+1000)
		streamed = append(streamed, resp.RangeResponse.Kvs...)
	}
	requireKeys(t, want.Kvs, streamed)

	path, err := saveSnapshot(t, away)
	require.NoError(t, err)
	f, err := snapfile.Open(path, t.TempDir(), true)
	require.NoError(t, err)
	require.Equal(t, int64(small+large), f.Keys)
	require.NoError(t, f.Close())

	// A transaction is one answer, and cannot be read in pieces.
	_, err = away.Txn(t.Context()).Then(clientv3.OpGet("k/", clientv3.WithPrefix())).Commit()
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
}

func requireKeys(t *testing.T, want, got []*mvccpb.KeyValue) {
	t.Helper()
	require.Len(t, got, len(want))
	for i, kv := range want {
		require.True(t, proto.Equal(kv, got[i]), "key %q", kv.Key)
	}
}
