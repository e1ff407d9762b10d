package router

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// starter is a Starter whose requests are answered when the test says so.
type starter struct {
	mu    sync.Mutex
	under []*startedRequest
}

type startedRequest struct {
	req   *Request
	done  Ender
	ended bool
}

// Start implements Starter.
func (s *starter) Start(_ shard.NodeID, req *Request, done Ender) Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &startedRequest{req: req, done: done}
	s.under = append(s.under, c)
	return c
}

// Told implements Starter.
func (s *starter) Told(_ shard.NodeID, err error) error { return err }

// Abandon implements Call.
func (c *startedRequest) Abandon(cause error) {
	c.end(nil, errors.Join(shard.ErrUnknownOutcome, cause))
}

func (c *startedRequest) end(reply *Reply, err error) {
	if !c.ended {
		c.ended = true
		c.done.End(reply, err)
	}
}

// next is the oldest request that was started and not taken.
func (s *starter) next(t *testing.T) *startedRequest {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NotEmpty(t, s.under)
	c := s.under[0]
	s.under = s.under[1:]
	return c
}

// inTurns runs a story on a router whose first shard has as many writes under way as it is
// given at first. They are the test's to leave.
func inTurns(t *testing.T, story func(t *testing.T, w *world, r *Router, s *starter, under []admission.Turn)) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		s := &starter{}
		r.cfg.Starter = s
		put(t, r, "a", "1") // so that the cache has both shards
		put(t, r, "z", "1")
		var under []admission.Turn
		for {
			turn, ok := r.cfg.Lanes.Try(2)
			if !ok {
				break
			}
			under = append(under, turn)
		}
		story(t, w, r, s, under)
	})
}

// begin starts a put as a node does.
func begin(t *testing.T, r *Router, key string, outcomes chan<- error) Call {
	req := &pb.PutRequest{Key: []byte(key)}
	return r.StartEncodedPut(t.Context(), req, encodePut(req), func(_ *pb.PutResponse, err error) { outcomes <- err })
}

// T8: writes that nobody waits for have their turns like others, in the order in which they came, and leave
// them with their outcome.
func TestStartedWritesWaitForTheirTurn(t *testing.T) {
	inTurns(t, func(t *testing.T, _ *world, r *Router, s *starter, under []admission.Turn) {
		outcomes := make(chan error, 2)
		begin(t, r, "a", outcomes)
		r.StartTxn(t.Context(), putBoth("a", "b"), func(_ *pb.TxnResponse, err error) { outcomes <- err })
		require.Empty(t, s.under)
		elsewhere := begin(t, r, "z", outcomes)
		require.Len(t, s.under, 1, "another shard has turns of its own")
		elsewhere.Abandon(context.Canceled)
		require.ErrorIs(t, <-outcomes, shard.ErrUnknownOutcome)
		s.next(t)

		under[0].Leave(nil)
		first := s.next(t)
		require.Equal(t, shardpb.Kind_PUT, first.req.Command.Kind)
		require.Empty(t, s.under)
		first.end(&Reply{Rev: 7, Message: &pb.PutResponse{}}, nil)
		require.NoError(t, <-outcomes)
		second := s.next(t)
		require.Equal(t, shardpb.Kind_TXN, second.req.Command.Kind)
		second.end(nil, shard.ErrNoSpace)
		require.ErrorIs(t, <-outcomes, shard.ErrNoSpace)

		for _, turn := range under[1:] {
			turn.Leave(nil)
		}
		turn, ok := r.cfg.Lanes.Try(2)
		require.True(t, ok, "all turns were left")
		turn.Leave(nil)
	})
}

// A write that is abandoned before its turn was certainly not sent; afterwards nobody knows.
func TestStartedWritesAreAbandoned(t *testing.T) {
	inTurns(t, func(t *testing.T, w *world, r *Router, s *starter, under []admission.Turn) {
		outcomes := make(chan error, 1)
		start := func() Call {
			return begin(t, r, "a", outcomes)
		}
		before := w.count(routerpb.Op_OP_WRITE, shardpb.Kind_PUT)
		waits := start()
		waits.Abandon(context.Canceled)
		require.Equal(t, context.Canceled, <-outcomes)
		under[0].Leave(nil)
		require.Empty(t, s.under)

		sent := start()
		sent.Abandon(context.Canceled)
		require.ErrorIs(t, <-outcomes, shard.ErrUnknownOutcome)
		s.next(t)
		sent.Abandon(context.Canceled)
		require.Empty(t, outcomes, "it has ended")

		// Who waits for too long is sent away.
		start()
		start()
		synctest.Wait()
		require.Empty(t, outcomes)
		bubble.Pass(admission.WaitMax)
		require.ErrorIs(t, <-outcomes, shard.ErrOverloaded)
		require.Equal(t, before, w.count(routerpb.Op_OP_WRITE, shardpb.Kind_PUT), "nobody sent anything otherwise")
	})
}

// What a first attempt leaves to be tried is tried in the same turn (T1).
func TestStartedWritesAreTriedAgainInTheirTurn(t *testing.T) {
	inTurns(t, func(t *testing.T, w *world, r *Router, s *starter, under []admission.Turn) {
		outcomes := make(chan error, 1)
		before := w.count(routerpb.Op_OP_WRITE, shardpb.Kind_PUT)
		start := func() {
			begin(t, r, "a", outcomes)
		}
		start()
		under[0].Leave(nil)
		s.next(t).end(nil, &shard.NotLeaderError{Shard: 2, Leader: 1})
		require.NoError(t, <-outcomes)
		require.Equal(t, before+1, w.count(routerpb.Op_OP_WRITE, shardpb.Kind_PUT))

		start()
		s.next(t).end(nil, shard.ErrUnknownOutcome)
		require.ErrorIs(t, <-outcomes, shard.ErrUnknownOutcome)
		start()
		s.next(t).end(nil, errors.Join(shard.ErrUnavailable, ErrRequestTimeout))
		require.ErrorIs(t, <-outcomes, ErrRequestTimeout, "there was time enough")
		require.Equal(t, before+1, w.count(routerpb.Op_OP_WRITE, shardpb.Kind_PUT))
	})
}

// The memory of a put that has ended serves the next one: each has its own outcome, also of what is tried again, and whoever
// gives up the first leaves the second alone.
func TestMemoryOfAPutIsUsedAgain(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, _ *world, r *Router) {
		put(t, r, "a", "1")
		s := &starter{}
		r.cfg.Starter, r.cfg.Self = s, 0
		var memory Put
		revisions := make(chan int64, 1)
		start := func(key string) (Call, *startedRequest) {
			memory.Forget()
			call := r.StartPutIn(&memory, t.Context(), &pb.PutRequest{Key: []byte(key)}, func(resp *pb.PutResponse, err error) {
				require.NoError(t, err)
				revisions <- resp.Header.Revision
			})
			return call, s.next(t)
		}
		first, asked := start("a")
		asked.end(&Reply{Rev: 7}, nil)
		require.EqualValues(t, 7, <-revisions)

		_, asked = start("b")
		first.Abandon(context.Canceled)
		require.Empty(t, revisions)
		require.Equal(t, "b", string(asked.req.Put.Key))
		asked.end(&Reply{Rev: 9}, nil)
		require.EqualValues(t, 9, <-revisions)

		_, asked = start("c")
		asked.end(nil, &shard.NotLeaderError{Shard: 1, Leader: 1})
		require.Greater(t, <-revisions, int64(9))
	})
}
