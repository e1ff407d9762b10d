package raftlog

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/flotilla-kv/flotilla/internal/giveway"
)

// Options of a Log. The zero value is a good default.
type Options struct {
	FS         vfs.FS
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Busy, which must not block, is told when writes begin or cease to wait.
	Busy func(bool)
	// Synced, which must not block, is told how long each sync took.
	Synced func(took time.Duration)

	// tune changes Pebble's options last; tests use it to flush often.
	tune func(*pebble.Options)
}

const (
	// memTableBytes holds the log of some seconds under load: most entries are removed
	// again before they would be rewritten by a compaction.
	memTableBytes = 32 << 20
	memTablesMax  = 4
	// Entries of some length are written to files of their own by the flush and not again by
	// compactions, which would rewrite all of them for the sake of the few records between.
	apartBytesMin = 256
	apartDepthMax = 32
	// A quiet replica's entries must not keep the files of busy ones.
	apartAgeMin     = time.Minute
	apartGarbageMax = 0.5
)

func (o Options) pebble() *pebble.Options {
	p := &pebble.Options{
		FS:                          giveway.FS{FS: aheadFS{o.FS}},
		Logger:                      logger{o.Logger},
		FormatMajorVersion:          pebble.FormatValueSeparation,
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: memTablesMax,
		L0StopWritesThreshold:       64, // a stall would stop every group of the node
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
		CacheSize:                   8 << 20, // read by replicas that catch up, and at start
	}
	p.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled: true, MinimumSize: apartBytesMin, MaxBlobReferenceDepth: apartDepthMax,
			RewriteMinimumAge: apartAgeMin, TargetGarbageRatio: apartGarbageMax,
		}
	}
	// Entries are removed again soon.
	for i := range p.Levels {
		p.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	}
	p.EventListener = &pebble.EventListener{
		BackgroundError: func(err error) { o.Logger.Error("raft log: background work failed", "err", err) },
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			o.Logger.Error("raft log: a file is corrupt; this node must be replaced", "path", i.Path, "err", i.Details)
		},
		WriteStallBegin: func(i pebble.WriteStallBeginInfo) {
			o.Logger.Warn("raft log: writes stall", "reason", i.Reason)
			o.Busy(true)
		},
		WriteStallEnd: func() { o.Busy(false) },
	}
	if o.tune != nil {
		o.tune(p)
	}
	p.EnsureDefaults()
	return p
}

// logger gives Pebble an slog.Logger. Its chatter is debugging.
type logger struct{ log *slog.Logger }

func (l logger) Infof(format string, args ...any) {
	l.log.Debug("raft log: " + fmt.Sprintf(format, args...))
}
func (l logger) Errorf(format string, args ...any) {
	l.log.Error("raft log: " + fmt.Sprintf(format, args...))
}

// Fatalf must not return: Pebble calls it when going on would lose data.
func (l logger) Fatalf(format string, args ...any) {
	msg := "raft log: " + fmt.Sprintf(format, args...)
	l.log.Error(msg)
	panic(msg)
}
