package replica

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/lni/dragonboat/v4/config"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/internal/powercut"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/hlc"
	"github.com/flotilla-kv/flotilla/shard/raftlog"
)

// outage is a node whose power is cut before some operation of its disk.
type outage struct {
	t       *testing.T
	rng     *rand.Rand
	disk    *powercut.Disk
	percent int // of what was not synced survives

	left atomic.Int64 // operations until the power is cut, of those
	of   string       // in whose path this is
	cut  context.CancelFunc
	ctx  context.Context
	// What the cut leaves; set before ctx is done.
	after     *powercut.Disk
	cutBefore string

	engine *engine.Engine
	host   *Host
}

// expect settles when the power is cut: within so many operations of one of these parts of the disk.
func (o *outage) expect(parts []string, within map[string]int64) {
	o.ctx, o.cut = context.WithCancel(o.t.Context())
	o.of = parts[o.rng.IntN(len(parts))]
	o.left.Store(1 + o.rng.Int64N(within[o.of]))
}

// due reports whether the power is cut before this operation.
func (o *outage) due(op errorfs.Op) bool {
	return powercut.Changes(op) && strings.Contains(op.Path, o.of) && o.left.Add(-1) == 0
}

func (o *outage) cutPower(op errorfs.Op) {
	o.after = o.disk.Cut(o.percent, rand.New(rand.NewPCG(*seed, uint64(op.Kind))))
	o.cutBefore = fmt.Sprintf("op %d of %s", op.Kind, op.Path)
	o.cut()
}

// boot starts the node's process, which tells before of each operation of the disk.
func (o *outage) boot(node shard.NodeID, addr string, incarnation uint64, transport config.TransportFactory, before func(errorfs.Op)) {
	fs := o.disk.FS(before)
	var err error
	o.engine, err = engine.Open("store", engine.Options{CacheBytes: 1 << 20, FS: fs})
	require.NoError(o.t, err)
	o.host, err = OpenHost(HostConfig{
		Node: node, Incarnation: incarnation, Engine: o.engine, Source: hlc.NewHybrid(clock.System{}),
		Raft: RaftConfig{
			Dir: "/raft", Address: addr, ClusterID: 5, TickInterval: 5 * time.Millisecond, ElectionTicks: 10,
			LogEntries: 40, LogBytes: 2 << 10, Transport: transport, Log: &raftlog.Factory{FS: fs}, FS: raftFS{fs},
		},
		Logger: slog.New(slog.DiscardHandler), Metrics: NewMetrics(prometheus.NewRegistry()), ProposalTimeout: 5 * time.Second,
		Apply: apply.Options{Backlog: apply.NewBacklog(64<<10, func(gather func()) { go gather() })},
	})
	require.NoError(o.t, err)
}

// halt ends what is left of the process, on a disk that nobody looks at.
func (o *outage) halt() {
	o.host.Close()
	_ = o.engine.Close()
}

// done takes the steps, each again until it succeeds, as nodes do: on a busy machine any may fail. It is false when the
// power was cut before.
func (o *outage) done(steps ...func() error) bool {
	for _, step := range steps {
		for deadline := time.Now().Add(patience); ; {
			err := step()
			if o.ctx.Err() != nil {
				return false
			}
			if err == nil {
				break
			}
			require.True(o.t, time.Now().Before(deadline), err)
			select {
			case <-o.ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
	}
	return true
}
