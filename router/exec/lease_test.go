package exec

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Lease 41 lives in [b, y), lease 1 does not.
const (
	ownLease     = 41
	foreignLease = 1
)

func (n *node) lease(op routerpb.Op, id int64) (*routerpb.LeaseStatus, error) {
	q := &routerpb.LeaseQuery{Lease: id}
	if op == routerpb.Op_OP_LEASE_KEEPALIVE {
		q = &routerpb.LeaseQuery{Leases: []int64{id}}
	}
	reply, err := n.read(func(r *router.Request) { r.Op, r.Message = op, q })
	if err != nil {
		return nil, err
	}
	require.Equal(n.t, n.replica.View().Rev, reply.Rev)
	return reply.Message.(*routerpb.LeaseStatus), nil
}

func (n *node) status(op routerpb.Op, id int64) *routerpb.LeaseStatus {
	n.t.Helper()
	s, err := n.lease(op, id)
	require.NoError(n.t, err)
	return s
}

func TestLeases(t *testing.T) {
	n := newNode(t)
	require.Equal(t, []int64{0}, n.status(routerpb.Op_OP_LEASE_KEEPALIVE, ownLease).Ttls)
	require.Equal(t, int64(-1), n.status(routerpb.Op_OP_LEASE_TTL, ownLease).Ttl)
	require.Empty(t, n.status(routerpb.Op_OP_LEASE_LIST, 0).Leases)
	require.Empty(t, n.status(routerpb.Op_OP_LEASE_KEYS, ownLease).Keys)

	reply, err := n.write(command(shardpb.Kind_LEASE_GRANT, &shardpb.LeaseCommand{Lease: ownLease, Ttl: 1000}), true)
	require.NoError(t, err)
	require.Equal(t, int64(1000), reply.Message.(*shardpb.LeaseAnswer).Ttl)
	for _, key := range []string{"d", "c"} {
		_, err = n.write(command(shardpb.Kind_PUT, &pb.PutRequest{Key: []byte(key), Lease: ownLease}), true)
		require.NoError(t, err)
	}
	require.Equal(t, []int64{1000}, n.status(routerpb.Op_OP_LEASE_KEEPALIVE, ownLease).Ttls)
	s := n.status(routerpb.Op_OP_LEASE_TTL, ownLease)
	require.Equal(t, int64(1000), s.GrantedTtl)
	require.Positive(t, s.Ttl)
	require.LessOrEqual(t, s.Ttl, int64(1000))
	require.Equal(t, []byte("b"), s.Spans[0].Start)
	require.Equal(t, []byte("y"), s.Spans[0].End)
	require.Equal(t, int64(ownLease), n.status(routerpb.Op_OP_LEASE_LIST, 0).Leases[0].Lease)
	require.Equal(t, [][]byte{[]byte("c"), []byte("d")}, n.status(routerpb.Op_OP_LEASE_KEYS, ownLease).Keys)
}

func TestLeasesAreAskedAtTheirHome(t *testing.T) {
	n := newNode(t)
	var wrong *shard.WrongShardError
	for _, op := range []routerpb.Op{routerpb.Op_OP_LEASE_KEEPALIVE, routerpb.Op_OP_LEASE_TTL} {
		_, err := n.lease(op, foreignLease)
		require.ErrorAs(t, err, &wrong, "%v", op)
	}
	for _, op := range []routerpb.Op{routerpb.Op_OP_LEASE_KEEPALIVE, routerpb.Op_OP_LEASE_TTL, routerpb.Op_OP_LEASE_LIST, routerpb.Op_OP_LEASE_KEYS} {
		_, err := n.read(func(r *router.Request) {
			r.Op, r.Message, r.Epoch = op, &routerpb.LeaseQuery{Lease: ownLease}, testEpoch+1
		})
		require.ErrorAs(t, err, &wrong, "%v", op)
	}
	require.Empty(t, n.status(routerpb.Op_OP_LEASE_KEYS, foreignLease).Keys, "keys are at other shards too")

	// A put tells what REGISTER must bring back.
	put := command(shardpb.Kind_PUT, &pb.PutRequest{Key: []byte("c"), Lease: foreignLease})
	_, err := n.write(put, true)
	var unregistered *shard.UnregisteredLeaseError
	require.ErrorAs(t, err, &unregistered)
	_, err = n.write(command(shardpb.Kind_LEASE_REGISTER, &shardpb.LeaseCommand{Lease: foreignLease, Incarnation: 5, Fence: unregistered.Fence}), false)
	require.NoError(t, err)
	_, err = n.write(put, true)
	require.NoError(t, err)
	require.Equal(t, [][]byte{[]byte("c")}, n.status(routerpb.Op_OP_LEASE_KEYS, foreignLease).Keys)
}
