package replica

import (
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// readySet is how dragonboat's readyShard begins.
type readySet struct {
	mu    sync.Mutex
	ready map[uint64]struct{}
}

func isReady(set unsafe.Pointer, id uint64) bool {
	s := (*readySet)(set)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.ready[id]
	return ok
}

// A worker that is woken once more after it did its work does not find an empty set, for which it would look at all
// replicas.
func TestWorkersFindNoEmptySet(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer p.close()
	p.startNew()
	w := &p.host.wakeups
	require.Len(t, w.step, execWorkers)
	// A step worker leaves it behind each time, an apply worker only when it has applied something.
	require.Eventually(t, func() bool { return isReady(w.step[0], nobody) }, patience, time.Millisecond)
	left := make(chan bool, 1)
	p.replica.Propose(putCommand("a", "1"), func(r shard.Result) {
		left <- r.Err == nil && isReady(w.apply[int(testShard)%len(w.apply)], nobody) // the worker is here
	})
	require.True(t, <-left)
}

// An apply worker that forgot a replica that is to be started is told again, and no more once it has started.
func TestWorkerIsRemindedOfAStart(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer p.close()
	p.startNew()
	w := &p.host.wakeups
	set, busy, resume := w.apply[int(testShard)%len(w.apply)], make(chan struct{}), make(chan struct{})
	p.replica.Propose(putCommand("a", "1"), func(shard.Result) {
		close(busy) // the worker is here, and takes nothing from its set
		<-resume
	})
	<-busy
	defer close(resume)
	other := testShard + shard.ID(len(w.apply))
	stop := w.remind(other) // dragonboat chooses the worker, and it is the one that applied takes it for
	require.Eventually(t, func() bool { return isReady(set, uint64(other)) }, patience, time.Millisecond)
	stop()
}
