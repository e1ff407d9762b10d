package raftlog

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/prometheus/client_golang/prometheus"
)

// name and binaryFormat are recorded in a node's Raft directory, which is refused under any other.
const (
	name                = "flotilla-raftlog"
	binaryFormat uint32 = 0xf1070003
)

// Folders below the directory that dragonboat gives us. Earlier versions wrote to another folder,
// so that if one of them is started by mistake, and refused, it leaves nothing in this one.
const (
	logFolder     = "segments"
	earlierFolder = "log"
)

// Factory opens a node's log for dragonboat. It is for one node.
type Factory struct {
	// FS is the file system. Default: the machine's. Tests pass one that can crash.
	FS vfs.FS
	// Logger logs the store's warnings.
	Logger *slog.Logger
	// Registerer registers the metrics. Default: none are exported.
	Registerer prometheus.Registerer
	// Synced, which must not block, is called with the duration of each sync.
	Synced func(took time.Duration)

	log atomic.Pointer[Log] // nil until Create
}

var _ config.LogDBFactory = (*Factory)(nil)

// Name implements config.LogDBFactory.
func (f *Factory) Name() string { return name }

// Create implements config.LogDBFactory. The first folder is where the log is. The callback would
// be told when writes wait for something other than the disk.
func (f *Factory) Create(_ config.NodeHostConfig, _ config.LogDBCallback, folders, _ []string) (raftio.ILogDB, error) {
	fs := f.FS
	if fs == nil {
		fs = vfs.Default
	}
	if err := refuseEarlier(fs, folders[0]); err != nil {
		return nil, err
	}
	log, err := Open(fs.PathJoin(folders[0], logFolder), Options{
		FS: fs, Logger: f.Logger, Registerer: f.Registerer, Synced: f.Synced,
	})
	if err != nil {
		return nil, err
	}
	f.log.Store(log)
	return log, nil
}

// refuseEarlier refuses a directory that has only a log of format f1070001, a Pebble store. Format
// f1070002 is recognised by its segments.
func refuseEarlier(fs vfs.FS, path string) error {
	if names, err := fs.List(fs.PathJoin(path, logFolder)); err == nil && len(names) > 0 {
		return nil
	}
	earlier := fs.PathJoin(path, earlierFolder)
	if names, err := fs.List(earlier); err != nil || len(names) == 0 {
		return nil
	}
	return errEarlier(earlier)
}

func errEarlier(path string) error {
	return fmt.Errorf("%s is a Raft log of an earlier version, which this one cannot read: run that one again, or, one node after the other, "+
		"decommission and remove the node and start it with an empty data directory", path)
}

// Sync makes durable what was written to the log before the call.
func (f *Factory) Sync() error { return f.log.Load().Sync() }

// Bytes is how much a replica's entries before an index take. It reads no file.
func (f *Factory) Bytes(shardID, replicaID, before uint64) int64 {
	return f.log.Load().bytes(raftio.GetNodeInfo(shardID, replicaID), before)
}
