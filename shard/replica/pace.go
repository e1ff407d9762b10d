package replica

import (
	"io"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flotilla-kv/flotilla/shard/mvcc"
)

// pace limits the rate of what is written through it, over all writers together, so that sending whole shards leaves
// the disk and the network to requests.
type pace struct {
	rate int64              // bytes a second; 0 is no limit
	sent prometheus.Counter // counts the bytes written

	mu   sync.Mutex
	free time.Time // when the time reserved so far is over
}

// take reserves the time of n bytes and returns how long to wait until it begins.
func (p *pace) take(n int) time.Duration {
	if p.rate <= 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	wait := p.free.Sub(now)
	p.free = p.free.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	return wait
}

// writer writes to w at the pace until stop is closed.
func (p *pace) writer(w io.Writer, stop <-chan struct{}) io.Writer {
	return &pacedWriter{pace: p, w: w, stop: stop}
}

type pacedWriter struct {
	pace *pace
	w    io.Writer
	stop <-chan struct{}
}

// Write implements io.Writer.
func (p *pacedWriter) Write(data []byte) (int, error) {
	if wait := p.pace.take(len(data)); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.stop:
			return 0, mvcc.ErrSnapshotStopped
		}
	}
	n, err := p.w.Write(data)
	p.pace.sent.Add(float64(n))
	return n, err
}
