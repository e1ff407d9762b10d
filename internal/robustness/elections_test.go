package robustness

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/history"
)

// When a leader was lost lies between the last two answers, however long a node does not answer; and a node
// that starts again counts anew. What happens last is seen too.
func TestLostLeadersAreSeenBetweenAnswers(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clock time.Duration
	since := func() time.Duration { clock += time.Second; return clock }
	answers := []int{0, 1, -1, -1, 3, 0, 2, 2, 4} // -1: none
	elected := elections(ctx, since, func(context.Context) (int, error) {
		n := answers[0]
		if answers = answers[1:]; len(answers) == 1 {
			cancel()
		}
		if n < 0 {
			return 0, errors.New("it is paused")
		}
		return n, nil
	})
	require.Empty(t, answers)
	seconds := func(from, to int) history.Interval {
		return history.Interval{From: time.Duration(from) * time.Second, To: time.Duration(to) * time.Second}
	}
	// 1: the beginning, 2: the look that sees 0, 3 and 4: before and after the one that sees 1, 5 and 6: no answers
	require.Equal(t, []history.Interval{seconds(2, 4), seconds(3, 8), seconds(9, 11), seconds(12, 14)}, elected)
}
