package node

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// A write to a shard that does not answer ends after the time that a request may take, and
// others neither sooner nor later.
func TestOwnWritesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var own ownWrites
		outcomes := make(map[string][]error)
		begin := func(name string) *ownWrite {
			return own.begin(ending(func(err error) { outcomes[name] = append(outcomes[name], err) }))
		}
		first := begin("first")
		answered := begin("answered")
		bubble.Pass(time.Second)
		begin("second")
		answered.finish(&router.Reply{}, nil)
		require.Equal(t, map[string][]error{"answered": {nil}}, outcomes)

		bubble.Pass(router.RequestTimeout - time.Second)
		synctest.Wait()
		require.ErrorIs(t, outcomes["first"][0], router.ErrRequestTimeout)
		require.ErrorIs(t, outcomes["first"][0], shard.ErrUnknownOutcome)
		require.Len(t, outcomes, 2)
		bubble.Pass(time.Second)
		synctest.Wait()
		require.ErrorIs(t, outcomes["second"][0], router.ErrRequestTimeout)

		first.finish(&router.Reply{}, nil) // the answer comes after all
		answered.Abandon(router.ErrRequestTimeout)
		for name, told := range outcomes {
			require.Len(t, told, 1, name)
		}
		require.Zero(t, own.mu.under.Len())
	})
}

// ending is a router.Ender that is told errors.
type ending func(error)

func (e ending) End(_ *router.Reply, err error) { e(err) }
