package raftlog

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/prometheus/client_golang/prometheus"
)

// name and binaryFormat are recorded in a node's Raft directory, which is refused under
// any other.
const (
	name                = "flotilla-raftlog"
	binaryFormat uint32 = 0xf1070001
)

// Factory opens the log of a node, as dragonboat's configuration wants it. It is for one.
type Factory struct {
	// FS is the file system. Default: the machine's. Tests pass one that can crash.
	FS vfs.FS
	// Logger gets the store's warnings.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: none are exported.
	Registerer prometheus.Registerer
	// Synced, which must not block, is told how long each sync took.
	Synced func(took time.Duration)

	log atomic.Pointer[Log] // nil until Create
}

var _ config.LogDBFactory = (*Factory)(nil)

// Name implements config.LogDBFactory.
func (f *Factory) Name() string { return name }

// Create implements config.LogDBFactory. The first folder is where the log lives; the
// callback hears when writes have to wait.
func (f *Factory) Create(_ config.NodeHostConfig, busy config.LogDBCallback, folders, _ []string) (raftio.ILogDB, error) {
	fs := f.FS
	if fs == nil {
		fs = vfs.Default
	}
	log, err := Open(fs.PathJoin(folders[0], "log"), Options{
		FS: fs, Logger: f.Logger, Registerer: f.Registerer, Synced: f.Synced,
		Busy: func(yes bool) { busy(config.LogDBInfo{Busy: yes}) },
	})
	if err != nil {
		return nil, err
	}
	f.log.Store(log)
	return log, nil
}

// Sync makes durable what was written to the log before the call.
func (f *Factory) Sync() error { return f.log.Load().Sync() }
