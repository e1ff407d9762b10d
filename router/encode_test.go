package router

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// Byte for byte what protobuf makes of it.
func TestEncodePut(t *testing.T) {
	for _, r := range []*pb.PutRequest{
		{}, {Key: []byte("k")}, {Key: []byte("k"), Value: make([]byte, 300)}, {Key: make([]byte, 200), Lease: 7},
		{Key: []byte("k"), Lease: -1, PrevKv: true}, {Key: []byte("k"), IgnoreValue: true, IgnoreLease: true},
	} {
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
		require.NoError(t, err)
		got := encodePut(r)
		require.Equal(t, string(want), string(got), "%v", r)
		require.LessOrEqual(t, cap(got)-len(got), 32, "room that is not needed: %v", r)
	}
}
