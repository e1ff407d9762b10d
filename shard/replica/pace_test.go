package replica

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard/mvcc"
)

// All writers of a pace share its rate; a pause is not made up for.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pace{rate: 1000}
		var a, b bytes.Buffer
		began := time.Now()
		write := func(w *bytes.Buffer) {
			_, err := p.writer(w, nil).Write(make([]byte, 500))
			require.NoError(t, err)
		}
		write(&a)
		write(&b)
		write(&a)
		require.Equal(t, time.Second, time.Since(began), "what came before has had its time")
		require.Equal(t, 1500, a.Len()+b.Len())
		time.Sleep(time.Hour)
		began = time.Now()
		write(&a)
		write(&a)
		require.Equal(t, 500*time.Millisecond, time.Since(began))

		stop := make(chan struct{})
		close(stop)
		_, err := p.writer(&a, stop).Write(nil)
		require.ErrorIs(t, err, mvcc.ErrSnapshotStopped)
		require.Same(t, &a, (&pace{}).writer(&a, nil), "no bound")
	})
}
