package replica

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// A shard that begins on a node that has run for longer than a request may take loses nothing
// with its first tick, and none with those that follow.
func TestRequestsOutliveTicks(t *testing.T) {
	const tick, timeout = 200 * time.Millisecond, 400 * time.Millisecond
	p := openProcessWith(t, t.TempDir(), 1, func(c *HostConfig) {
		c.Raft.TickInterval, c.ProposalTimeout = tick, timeout
	})
	defer func() { p.close() }()
	opened := time.Now()
	for id := shard.ID(testShard); time.Since(opened) < 2*timeout+5*tick; id++ {
		p.startNewShard(id, shard.Span{Start: fmt.Appendf(nil, "%03d", id), End: fmt.Appendf(nil, "%03d", id+1)})
		born := time.Now()
		var work sync.WaitGroup
		work.Go(func() {
			for time.Since(born) < 2*tick {
				if r := p.propose(&shardpb.Command{Kind: shardpb.Kind_CLOSE, Epoch: 1}); r.Err != nil {
					t.Errorf("propose %v after shard %d began: %v", time.Since(born), id, r.Err)
				}
			}
		})
		work.Go(func() {
			for time.Since(born) < 2*tick {
				if _, err := p.replica.Barrier(t.Context()); err != nil {
					t.Errorf("a barrier %v after shard %d began: %v", time.Since(born), id, err)
				}
			}
		})
		work.Wait()
		require.False(t, t.Failed())
	}
}
