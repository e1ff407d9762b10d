package load

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestGrownWorkloadsTellHowManyKeysThereAre(t *testing.T) {
	put, err := Named([]string{"put", "get"})
	require.NoError(t, err)
	grown, err := Grown(put, []int{500, 20_000, 3_000_000})
	require.NoError(t, err)
	var names []string
	for _, w := range grown {
		names = append(names, w.Name())
	}
	require.Equal(t, []string{
		"load-500", "put-500", "get-500", "load-20k", "put-20k", "get-20k", "load-3M", "put-3M", "get-3M",
	}, names)
	_, err = Grown(put, []int{20_000, 500})
	require.ErrorContains(t, err, "larger than the last")
}

// A batch that a system gives up is told as an error, and written again until its time is up.
func TestBatchesAreWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		gaveUp := errors.New("etcdserver: request timed out")
		tries, told := 0, 0
		write := func(after int) error {
			tries, told = 0, 0
			return persist(ctx, func() error {
				if tries++; tries < after {
					return gaveUp
				}
				return nil
			}, func(err error) {
				require.ErrorIs(t, err, gaveUp)
				told++
			})
		}
		require.NoError(t, write(3))
		require.Equal(t, 2, told)
		require.ErrorIs(t, write(100), gaveUp)
		require.Equal(t, tries, told)
		require.Less(t, tries, 100)
	})
}
