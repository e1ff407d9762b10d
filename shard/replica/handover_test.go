package replica

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// P8: what comes while the heir is waited for is not in the log; when the heir is not there
// in time it is written by who leads still.
func TestNothingIsProposedDuringAHandover(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	require.NoError(t, p.propose(putCommand("a", "before")).Err)

	absent := errors.New("not there")
	outcome := make(chan shard.Result, 1)
	asked := 0
	err := p.replica.HandOver(t.Context(), 99, func(ctx context.Context) error {
		if asked++; asked == 1 {
			require.NoError(t, p.propose(putCommand("a", "meanwhile")).Err, "nothing waits yet")
			return nil
		}
		applied := p.replica.View().Applied
		p.replica.Propose(putCommand("a", "after"), func(r shard.Result) { outcome <- r })
		for range 20 { // rounds of Raft, any of which would bring the put with it
			view, err := p.replica.Barrier(ctx)
			require.NoError(t, err)
			require.Equal(t, applied, view.Applied)
		}
		return absent
	})
	require.ErrorIs(t, err, absent)
	require.NoError(t, (<-outcome).Err)
	require.Equal(t, "after", p.get("a"))
}

func TestOnlyALeaderHandsOver(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startAlone()
	var notLeader *shard.NotLeaderError
	require.ErrorAs(t, p.replica.HandOver(t.Context(), 2, func(context.Context) error { return nil }), &notLeader)
}
