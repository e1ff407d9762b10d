package etcdapi

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/txn"
)

// mapping is what becomes of one error, and whether clientv3 tries a read again. It
// never tries a write again (E2).
type mapping struct {
	err         error
	read, write error
	readRetried bool
}

func mappings() []mapping {
	crossShard := &txn.CrossShardError{Places: []txn.Place{
		{Span: shard.PointSpan([]byte("a")), Shards: []shard.ID{2}},
		{Span: shard.PointSpan([]byte("z")), Shards: []shard.ID{3}},
	}}
	same := func(err, want error, readRetried bool) mapping {
		return mapping{err: err, read: want, write: want, readRetried: readRetried}
	}
	return []mapping{
		same(shard.ErrCompacted, rpctypes.ErrGRPCCompacted, false),
		same(shard.ErrFutureRevision, rpctypes.ErrGRPCFutureRev, false),
		same(shard.ErrKeyNotFound, rpctypes.ErrGRPCKeyNotFound, false),
		same(shard.ErrLeaseNotFound, rpctypes.ErrGRPCLeaseNotFound, false),
		same(shard.ErrLeaseExists, rpctypes.ErrGRPCLeaseExist, false),
		same(shard.ErrNoSpace, rpctypes.ErrGRPCNoSpace, false),
		same(shard.ErrCorrupt, rpctypes.ErrGRPCCorrupt, false),
		same(shard.ErrOverloaded, rpctypes.ErrGRPCRequestTooManyRequests, false),
		same(crossShard, status.Error(codes.FailedPrecondition, crossShard.Error()), false),
		same(rpctypes.ErrGRPCDuplicateKey, rpctypes.ErrGRPCDuplicateKey, false),
		same(rpctypes.ErrDuplicateKey, rpctypes.ErrGRPCDuplicateKey, false), // as a client of ours has it

		// Certain failures: etcd's clients retry reads, and leave writes to their callers.
		same(shard.ErrUnavailable, rpctypes.ErrGRPCNoLeader, true),
		same(shard.ErrStopped, rpctypes.ErrGRPCStopped, true),
		same(shard.ErrClockUntrusted, rpctypes.ErrGRPCUnhealthy, true),
		same(&shard.NotLeaderError{Shard: 2}, rpctypes.ErrGRPCLeaderChanged, true),
		same(&shard.WrongShardError{Shard: 2}, rpctypes.ErrGRPCLeaderChanged, true),
		same(&shard.NoReplicaError{Shard: 2}, rpctypes.ErrGRPCNoLeader, true),
		same(&shard.NotClosedError{Shard: 2}, rpctypes.ErrGRPCTimeoutWaitAppliedIndex, true),

		// Uncertain ones, whatever caused them.
		same(shard.ErrUnknownOutcome, rpctypes.ErrGRPCTimeout, true),
		same(errors.Join(shard.ErrUnknownOutcome, context.DeadlineExceeded), rpctypes.ErrGRPCTimeout, true),
		same(errors.Join(shard.ErrUnavailable, shard.ErrUnknownOutcome), rpctypes.ErrGRPCTimeout, true),
		// A deadline inside the server, while the client still waits.
		same(context.DeadlineExceeded, rpctypes.ErrGRPCTimeout, true),
		same(context.Canceled, rpctypes.ErrGRPCTimeout, true),

		// What another gRPC hop could leak, and clientv3 would send a write again for.
		{
			err:  status.Error(codes.DeadlineExceeded, "hop"),
			read: status.Error(codes.DeadlineExceeded, "hop"), write: rpctypes.ErrGRPCTimeout, readRetried: true,
		},
		{
			err:  status.Error(codes.Canceled, "hop"),
			read: status.Error(codes.Canceled, "hop"), write: rpctypes.ErrGRPCTimeout, readRetried: true,
		},
		{
			err:  status.Error(codes.Unavailable, "there is no address available"),
			read: status.Error(codes.Unavailable, "there is no address available"), write: rpctypes.ErrGRPCTimeout, readRetried: true,
		},
		{
			err:  status.Error(codes.Unavailable, "there is no connection available"),
			read: status.Error(codes.Unavailable, "there is no connection available"), write: rpctypes.ErrGRPCTimeout, readRetried: true,
		},
	}
}

func TestErrorMapping(t *testing.T) {
	for _, m := range mappings() {
		for _, err := range []error{m.err, fmt.Errorf("put %q: %w", "k", fmt.Errorf("shard 2: %w", m.err))} {
			requireStatus(t, m.read, readError(t.Context(), err))
			requireStatus(t, m.write, writeError(err))
		}
	}
	require.NoError(t, readError(t.Context(), nil))
	require.NoError(t, writeError(nil))

	strange := fmt.Errorf("shard 2: %w", errors.New("strange"))
	requireStatus(t, status.Error(codes.Unknown, "shard 2: strange"), readError(t.Context(), strange))
	requireStatus(t, status.Error(codes.Unknown, "shard 2: strange"), writeError(strange))
}

func TestErrorOfAClientThatStoppedWaiting(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	err := fmt.Errorf("shard 2: %w", context.Canceled)
	requireStatus(t, status.Error(codes.Canceled, "context canceled"), readError(canceled, err))
	requireStatus(t, rpctypes.ErrGRPCTimeout, writeError(err))

	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	err = fmt.Errorf("shard 2: %w", context.DeadlineExceeded)
	requireStatus(t, status.Error(codes.DeadlineExceeded, "context deadline exceeded"), readError(late, err))
}

// requireStatus compares code and text, which is all that reaches a client.
func requireStatus(t *testing.T, want, got error) {
	t.Helper()
	require.Equal(t, status.Code(want), status.Code(got), "%v", got)
	require.Equal(t, rpctypes.ErrorDesc(want), rpctypes.ErrorDesc(got))
}

// The client is the judge of E2: every write reaches the store once.
func TestWhatClientv3TriesAgain(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	for _, m := range mappings() {
		err := fmt.Errorf("shard 2: %w", m.err)

		f.kv.failNext(err)
		_, got := f.client.Get(ctx, "k")
		if m.readRetried {
			require.NoError(t, got, "get, %v", m.err)
			require.Equal(t, 2, f.kv.calls(), "get, %v", m.err)
		} else {
			require.Equal(t, rpctypes.Error(m.read).Error(), rpctypes.Error(got).Error(), "get, %v", m.err)
			require.Equal(t, 1, f.kv.calls(), "get, %v", m.err)
		}

		for name, write := range map[string]func() error{
			"put":     func() error { _, err := f.client.Put(ctx, "k", "v"); return err },
			"delete":  func() error { _, err := f.client.Delete(ctx, "k"); return err },
			"txn":     func() error { _, err := f.client.Txn(ctx).Then(clientv3.OpPut("k", "v")).Commit(); return err },
			"compact": func() error { _, err := f.client.Compact(ctx, 1); return err },
		} {
			f.kv.failNext(err)
			require.Equal(t, rpctypes.Error(m.write).Error(), rpctypes.Error(write()).Error(), "%s, %v", name, m.err)
			require.Equal(t, 1, f.kv.calls(), "%s, %v", name, m.err)
		}
	}
}
