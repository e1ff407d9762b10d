package load

import (
	"testing"

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
