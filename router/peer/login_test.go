package peer

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// tokens is a Login whose tokens are numbers.
type tokens struct {
	given   atomic.Int32
	refused atomic.Bool // there are no more
}

func (l *tokens) Token(context.Context) (string, error) {
	if l.refused.Load() {
		return "", status.Error(codes.InvalidArgument, "wrong password")
	}
	return fmt.Sprint(l.given.Add(1)), nil
}

func (l *tokens) Refused(_ string, err error) bool { return status.Code(err) == codes.Unauthenticated }

// A write that was refused because of its stream's token is certain not to have been applied, and the next one has another
// stream. What the old stream has under way it still answers, and then it ends.
func TestARefusedToken(t *testing.T) {
	held := make(chan router.Ender, 1)
	var p *pair
	p = newPair(t, &fakeExecutor{write: func(req *router.Request, end router.Ender) {
		switch {
		case req.Shard == 8:
			held <- end
		case p.node.streams.Load() == 1:
			end.End(nil, status.Error(codes.Unauthenticated, "invalid token"))
		default:
			end.End(&router.Reply{Message: &pb.PutResponse{}}, nil)
		}
	}})
	login := &tokens{}
	p.client.login = login
	slow := make(chan error, 1)
	p.client.Start(write(8), router.EndFunc(func(_ *router.Reply, err error) { slow <- err }))
	end, first := <-held, p.client.mu.link
	_, err := p.client.Send(t.Context(), write(7))
	require.ErrorIs(t, err, shard.ErrUnavailable)
	require.NotErrorIs(t, err, shard.ErrUnknownOutcome)
	_, err = p.client.Send(t.Context(), write(7))
	require.NoError(t, err)
	require.Equal(t, int32(2), login.given.Load())
	end.End(&router.Reply{Message: &pb.PutResponse{}}, nil)
	require.NoError(t, <-slow)
	<-first.done

	login.refused.Store(true)
	p.client.mu.link.retired.Store(true)
	_, err = p.client.Send(t.Context(), write(7))
	require.Equal(t, codes.InvalidArgument, status.Code(err), "nothing was sent, and it is said why")
	require.NotErrorIs(t, err, shard.ErrUnknownOutcome)
	require.NotErrorIs(t, err, shard.ErrUnavailable)
}

// A request that found a stream just before its token was refused does not follow on it: the node would refuse it for certain, but
// the stream may end before that is heard, and of a write nothing would be known then.
func TestARetiredStreamTakesNothing(t *testing.T) {
	var reached atomic.Int32
	p := newPair(t, &fakeExecutor{write: func(_ *router.Request, end router.Ender) {
		reached.Add(1)
		end.End(&router.Reply{Message: &pb.PutResponse{}}, nil)
	}})
	p.client.login = &tokens{}
	_, err := p.client.Send(t.Context(), write(7))
	require.NoError(t, err)
	old, err := p.client.open()
	require.NoError(t, err)
	old.retired.Store(true)
	late := &call{asked: write(7), link: old}
	r := request{asked: late.asked}
	require.NoError(t, r.prepare())
	err = old.enqueue(late, &r)
	require.ErrorIs(t, err, errRetired)
	require.ErrorIs(t, err, shard.ErrUnavailable, "it is certain")
	<-old.done
	require.Equal(t, int32(1), reached.Load())

	// The client itself sends it by the next stream, and nobody notices.
	_, err = p.client.Send(t.Context(), write(7))
	require.NoError(t, err)
	require.Equal(t, int32(2), reached.Load())
}
