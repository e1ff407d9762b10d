package replica

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// step is one of the collector's, of which a version costs so much; held is what it had to
// wait in it. It returns how many versions it was and the rest after it.
func (s *share) step(cost, held time.Duration) (versions int, rest time.Duration) {
	versions = s.versions()
	rest = s.rest(versions, time.Duration(versions)*cost+held)
	s.rested(0)
	return versions, rest
}

func TestShareFollowsWhatOthersWait(t *testing.T) {
	var waited time.Duration
	var writes uint64
	s := newShare(func() time.Duration { return waited }, func() uint64 { return writes })
	const cost = 500 * time.Nanosecond
	for range 100 {
		s.step(cost, 0)
	}
	versions, rest := s.step(cost, 0)
	require.InDelta(t, stepTime/cost, versions, 1)
	require.InDelta(t, stepTime, rest, float64(stepTime)/10, "half of a processor is there to be had")
	require.InDelta(t, time.Second, s.after(time.Second), float64(time.Second)/10, "for any work")

	for _, busy := range []func(){func() { waited = 2 * pressed }, func() { writes++ }} {
		for range 5 {
			busy()
			s.step(cost, 0)
		}
		_, rest = s.step(cost, 0)
		require.InDelta(t, 39*stepTime, rest, float64(stepTime)/10, "others come first, but it goes on")
		busy()
		s.rested(0)
		require.InDelta(t, 39*time.Second, s.after(time.Second), float64(time.Second)/10, "of any work")
		waited = 0
		for range 100 {
			s.step(cost, 0)
		}
	}
	s.rested(2 * overslept)
	require.InDelta(t, shareMax/2, s.part, 0.01, "somebody else on the machine is busy")
	s.step(cost, 50*time.Millisecond)
	require.Less(t, s.part, shareMax/2, "the disk is")
}

// A step that had to wait is not taken for one that had more to do: steps would become
// small and rests long just when there is much to remove.
func TestShareTellsWorkFromWaiting(t *testing.T) {
	s := newShare(func() time.Duration { return 0 }, func() uint64 { return 0 })
	const cost = 500 * time.Nanosecond
	for range 100 {
		s.step(cost, 0)
	}
	for i := range 100 {
		held := time.Duration(0)
		if i%2 == 0 {
			held = 20 * time.Millisecond
		}
		versions, _ := s.step(cost, held)
		require.Greater(t, versions, 900)
	}
	// Work that really is more is found out.
	for range 200 {
		s.step(20*cost, 0)
	}
	versions, rest := s.step(20*cost, 0)
	require.Equal(t, stepVersionsMin, versions)
	require.InDelta(t, stepVersionsMin*20*cost, rest, float64(stepTime))
}

// On a node that is never idle, the collector removes what compactions release as fast as it comes, also if that is
// more than it removes at its least; and takes its least again when less comes.
func TestShareKeepsUpWithCompactions(t *testing.T) {
	const cost, every = time.Microsecond, time.Minute // of a version; between compactions
	var writes uint64
	s := newShare(func() time.Duration { return 0 }, func() uint64 { writes++; return writes })
	for _, load := range []struct {
		perSecond int
		walks     time.Duration // the longest one, once it has kept up for the first time
	}{{5_000, every}, {100_000, 3 * every}, {5_000, every}} {
		now, walked := every, time.Duration(0) // the time; the compaction that the last walk was of
		kept := false
		for now < 100*every {
			begun := now
			compacted := now.Truncate(every)
			for left := int(float64(load.perSecond) * (compacted - walked).Seconds()); left > 0; {
				versions, rest := s.step(cost, 0)
				left -= versions
				now += time.Duration(versions)*cost + rest
			}
			s.walked(now.Truncate(every) > compacted)
			if kept = kept || now-begun < every; kept {
				require.Less(t, now-begun, load.walks, "%d versions a second", load.perSecond)
			}
			walked = compacted
			now = max(now, compacted+every) // there is nothing to do before the next one
		}
		require.True(t, kept, "%d versions a second", load.perSecond)
	}
	require.InDelta(t, shareMin, s.floor, 0.001)
}

// With more to do than processors, goroutines wait.
func TestWaits(t *testing.T) {
	w := newWaits()
	stop := make(chan struct{})
	var work sync.WaitGroup
	for range 4 * runtime.GOMAXPROCS(0) {
		work.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.Gosched()
				}
			}
		})
	}
	require.Eventually(t, func() bool { return w.since() > 0 }, patience, time.Millisecond)
	close(stop)
	work.Wait()
}
