package client

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/shard"
)

// door is a node at which users log in.
type door struct {
	asked  atomic.Int32
	answer func(ctx context.Context) (token string, err error) // nil: never
}

func (d *door) Invoke(ctx context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	d.asked.Add(1)
	if d.answer == nil {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	token, err := d.answer(ctx)
	reply.(*pb.AuthenticateResponse).Token = token
	return err
}

func (*door) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("there are none")
}

type told struct {
	token string
	err   error
	took  time.Duration
}

// ask has n callers want a token at a node.
func ask(ctx context.Context, l *login, at *door, n int) <-chan told {
	out, began := make(chan told, n), time.Now()
	for range n {
		go func() {
			token, err := l.get(ctx, at)
			out <- told{token, err, time.Since(began)}
		}()
	}
	synctest.Wait()
	return out
}

func after(d time.Duration, token string, err error) *door {
	return &door{answer: func(ctx context.Context) (string, error) {
		select {
		case <-time.After(d):
			return token, err
		case <-ctx.Done():
			return "", status.FromContextError(ctx.Err()).Err()
		}
	}}
}

func newTestLogin() *login { return newLogin(Config{Username: "ann", Password: "a"}) }

// A node that takes a login and does not answer keeps nobody from logging in at another one, and whoever waits for it gets the
// other's token.
func TestASilentNodeHoldsNoLoginBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, silent, well := newTestLogin(), &door{}, after(100*time.Millisecond, "token", nil)
		stuck := ask(t.Context(), l, silent, 3)
		for range 3 {
			other := <-ask(t.Context(), l, well, 1)
			require.NoError(t, other.err)
			require.Equal(t, "token", other.token)
			require.Less(t, other.took, time.Second)
		}
		for range 3 {
			got := <-stuck
			require.NoError(t, got.err)
			require.Equal(t, "token", got.token)
		}
		require.Equal(t, int32(1), silent.asked.Load())
		require.Equal(t, int32(1), well.asked.Load())
	})
}

// A node that is sick, or is none, says nothing about the user: what is under way at others goes on.
func TestASickNodeIsNoRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLogin()
		slow := ask(t.Context(), l, after(2*time.Second, "token", nil), 1)
		sick := <-ask(t.Context(), l, after(0, "", status.Error(codes.Internal, "out of order")), 1)
		require.ErrorContains(t, sick.err, "out of order")
		got := <-slow
		require.NoError(t, got.err)
		require.Equal(t, "token", got.token)
		require.Equal(t, 2*time.Second, got.took)
	})
}

// Many nodes are silent: there is a new attempt after each pause, one at a node, and never more than fit into one's time.
func TestLoginsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLogin()
		ctx, leave := context.WithCancel(t.Context())
		nodes := make([]*door, 40)
		most := 0
		for i := range nodes {
			nodes[i] = &door{}
			ask(ctx, l, nodes[i], 2)
		}
		for range 20 {
			bubble.Pass(loginHedge)
			synctest.Wait()
			l.mu.Lock()
			most = max(most, len(l.mu.flying))
			l.mu.Unlock()
		}
		require.Greater(t, most, 1)
		require.LessOrEqual(t, most, 4)
		got := <-ask(ctx, l, after(0, "token", nil), 1)
		require.NoError(t, got.err)
		leave()
		synctest.Wait()
	})
}

// While a node is only slow there is one login for all, and one refusal for all.
func TestOneLoginForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLogin()
		slow := after(loginHedge/2, "token", nil)
		first, others := ask(t.Context(), l, slow, 5), ask(t.Context(), l, after(0, "other", nil), 5)
		for range 5 {
			require.Equal(t, "token", (<-first).token)
			require.Equal(t, "token", (<-others).token)
		}
		require.Equal(t, int32(1), slow.asked.Load())

		l = newTestLogin()
		refuses := after(time.Millisecond, "", rpctypes.ErrGRPCAuthFailed)
		got := ask(t.Context(), l, refuses, 5)
		for range 5 {
			require.Equal(t, codes.InvalidArgument, status.Code((<-got).err))
		}
		require.Equal(t, int32(1), refuses.asked.Load())
	})
}

// What an attempt is told after another one was answered does not count: it may be a token from before a change of the password.
func TestALateTokenDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLogin()
		late := &door{answer: func(context.Context) (string, error) { // whatever becomes of its context
			bubble.Pass(3 * time.Second)
			return "late", nil
		}}
		stuck := ask(t.Context(), l, late, 1)
		require.Equal(t, "token", (<-ask(t.Context(), l, after(0, "token", nil), 1)).token)
		require.Equal(t, "token", (<-stuck).token)
		token, err := l.get(t.Context(), late)
		require.NoError(t, err)
		require.Equal(t, "token", token)
	})
}

// Nobody answers: the error is certain, and comes in time.
func TestNobodyAnswersALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, silent := newTestLogin(), &door{}
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		first := ask(t.Context(), l, silent, 1)
		waits := <-ask(ctx, l, silent, 1)
		require.ErrorIs(t, waits.err, shard.ErrUnavailable)
		require.ErrorIs(t, waits.err, context.DeadlineExceeded)
		got := <-first
		require.ErrorIs(t, got.err, shard.ErrUnavailable)
		require.Equal(t, loginWait, got.took)
	})
}
