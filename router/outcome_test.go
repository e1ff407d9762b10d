package router

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/shard"
)

func TestOutcomesOfErrors(t *testing.T) {
	notLeader := &shard.NotLeaderError{Shard: 2}
	for _, c := range []struct {
		err                error
		certain, ambiguous bool
	}{
		{notLeader, true, false},
		{&shard.WrongShardError{Shard: 2}, true, false},
		{&shard.NoReplicaError{Shard: 2}, true, false},
		{fmt.Errorf("node n1: %w", shard.ErrUnavailable), true, false},
		{shard.ErrStopped, true, false},
		{shard.ErrClockUntrusted, true, false},
		{shard.ErrOverloaded, true, false},
		{shard.ErrNoSpace, false, false},
		{shard.ErrKeyNotFound, false, false},
		{shard.ErrCompacted, false, false},
		{rpctypes.ErrGRPCDuplicateKey, false, false},
		{shard.ErrLargeAnswer, false, true},
		{shard.ErrUnknownOutcome, false, true},
		{fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, notLeader), false, true},
		{fmt.Errorf("%w: %w", shard.ErrUnavailable, shard.ErrUnknownOutcome), false, true},
		{context.DeadlineExceeded, false, true},
		{errors.New("the reply does not decode"), false, true},
	} {
		require.Equal(t, c.certain, certain(c.err), "certain: %v", c.err)
		require.Equal(t, c.ambiguous, ambiguous(c.err), "ambiguous: %v", c.err)
	}
}

// What ends with RequestTimeout is known to those who know package shard, and a write that may have
// been applied stays one.
func TestTimedOut(t *testing.T) {
	bare := timedOut(fmt.Errorf("read barrier of shard 2: %w", ErrRequestTimeout))
	require.ErrorIs(t, bare, shard.ErrUnavailable)
	require.ErrorIs(t, bare, ErrRequestTimeout)
	retried := timedOut(&shard.NotLeaderError{Shard: 2})
	var notLeader *shard.NotLeaderError
	require.ErrorAs(t, retried, &notLeader)
	require.ErrorIs(t, retried, ErrRequestTimeout)
	unknown := fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, ErrRequestTimeout)
	require.Equal(t, unknown, timedOut(unknown))
	require.Equal(t, shard.ErrCompacted, timedOut(shard.ErrCompacted))
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b backoff
		start := time.Now()
		require.True(t, b.wait(t.Context(), nil))
		require.Zero(t, time.Since(start), "the first retry comes at once")
		last := time.Duration(0)
		for range 20 {
			before := time.Now()
			require.True(t, b.wait(t.Context(), nil))
			last = time.Since(before)
			require.LessOrEqual(t, last, backoffMax)
		}
		require.GreaterOrEqual(t, last, backoffMax/2)

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.False(t, b.wait(ctx, nil))
		require.False(t, (&backoff{}).wait(ctx, nil), "no retry for a caller that has left")

		before := time.Now()
		require.True(t, (&backoff{}).wait(t.Context(), fmt.Errorf("a queue: %w", shard.ErrOverloaded)))
		require.GreaterOrEqual(t, time.Since(before), backoffBusy/2, "who has too much to do is not asked again at once")
	})
}
