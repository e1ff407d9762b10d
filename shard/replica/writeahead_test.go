package replica

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What was applied is written out shortly before the log is cut, while the shard goes on.
func TestWhatWasAppliedIsWrittenBeforeTheLogIsCut(t *testing.T) {
	t.Parallel()
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer p.close()
	p.startNew()
	flushes := func() int64 { return p.engine.Metrics().Flush.Count }
	begun, between := flushes(), p.host.cfg.Raft.LogEntries
	for p.replica.View().Applied+1 < between-between/aheadPart {
		p.put("k", "v")
	}
	require.Equal(t, begun, flushes())
	p.put("k", "v")
	require.Eventually(t, func() bool { return flushes() > begun }, patience, time.Millisecond)
	require.Less(t, p.replica.View().Applied, between, "it is not cut yet")
}
