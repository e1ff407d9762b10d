package replica

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
)

// All writers of a pace share its rate; a pause is not made up for.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pace{rate: 1000, sent: prometheus.NewCounter(prometheus.CounterOpts{})}
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
		bubble.Pass(time.Hour)
		began = time.Now()
		write(&a)
		write(&a)
		require.Equal(t, 500*time.Millisecond, time.Since(began))

		stop := make(chan struct{})
		close(stop)
		_, err := p.writer(&a, stop).Write(nil)
		require.ErrorIs(t, err, mvcc.ErrSnapshotStopped)
		var sent dto.Metric
		require.NoError(t, p.sent.Write(&sent))
		require.Equal(t, 2500., sent.GetCounter().GetValue())

		p.rate = 0 // no bound
		began = time.Now()
		write(&b)
		write(&b)
		require.Zero(t, time.Since(began))
	})
}
