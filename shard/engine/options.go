package engine

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/flotilla-kv/flotilla/internal/giveway"
)

// Options of the store. The zero value is a good default.
type Options struct {
	// FS is the file system. Default: the machine's. Tests pass one that can crash.
	FS vfs.FS
	// CacheBytes bounds the cache of table blocks; memtables are counted against it.
	// Default 128 MiB. It is the node's largest block of memory, shared by all shards.
	CacheBytes int64
	// Logger gets the store's warnings: stalls, slow disks, background errors.
	// Default: nothing is logged.
	Logger *slog.Logger
	// ReadOnly opens an existing store without changing a byte of it; for offline
	// inspection. Everything that writes fails.
	ReadOnly bool

	// tune changes Pebble's options last; tests use it to flush often.
	tune func(*pebble.Options)
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 128 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// pebbleFormat is the on-disk format we ask Pebble for. Raising it is one-way for a
// store: a raise is a new Format of ours too (marker.go).
const pebbleFormat = pebble.FormatValueSeparation

const (
	memTableBytes = 32 << 20 // Pebble grows to it from 256 KiB; larger means rarer flushes and longer restarts
	memTablesMax  = 4        // writes stall beyond; with the size above, 128 MiB of unflushed data
)

// Pebble counts the values that are kept apart to the sizes of tables and levels.
const (
	// tableBytes is what a flush mostly has, so that it writes one table and one file of values. At
	// 2 MiB, which is Pebble's default, making files cost more than what was in them.
	tableBytes = 16 << 20
	// baseLevelBytes is about twice what a compaction of L0 brings there: it is rewritten with that.
	baseLevelBytes = 256 << 20
)

// Values of some length are written once, by the flush, to files of their own, and compactions
// move only keys: rewriting values was a quarter of what a put cost a server.
const (
	// apartBytesMin is from where on a value is kept apart. A shorter one takes hardly more
	// than what points to it.
	apartBytesMin = 128
	// apartDepthMax bounds of how many such files the values of neighbouring keys are, which
	// is what a range has to read; beyond, a compaction brings them together. It counts the
	// sublevels of L0 that come together, so that at 32 values were rewritten at each fourth compaction.
	apartDepthMax = 128
	// apartAgeMin and apartGarbageMax: an older file is rewritten when more of it is garbage.
	apartAgeMin     = time.Minute
	apartGarbageMax = 0.4
)

func (o Options) pebble(failures *failures, unflushed *unflushed) *pebble.Options {
	p := &pebble.Options{
		FS:                          &giveway.FS{FS: failures, Hurry: unflushed.urgent},
		ReadOnly:                    o.ReadOnly,
		Logger:                      logger{o.Logger},
		Comparer:                    comparer,
		KeySchema:                   keySchema.Name,
		KeySchemas:                  sstable.MakeKeySchemas(keySchema),
		FormatMajorVersion:          pebbleFormat,
		DisableWAL:                  true, // the Raft log is one
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: memTablesMax,
		// Eight sublevels: Pebble counts them double. Each compaction of L0 rewrites much of the
		// next level, so that one after every flush cost more than the flush. Removals may
		// stay in L0 then, until Tidy.
		L0CompactionThreshold: 16,
		// High, because a stall of L0 stalls every shard of the node at once.
		L0StopWritesThreshold: 64,
		LBaseMaxBytes:         baseLevelBytes,
		// Two at most: the store shares the machine with the Raft log.
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
		// Removing a large old span must not make the disk busy for seconds.
		TargetByteDeletionRate:  128 << 20,
		BlockPropertyCollectors: []func() pebble.BlockPropertyCollector{newRevisionCollector},
	}
	p.TargetFileSizes[0], p.TargetFileSizes[1] = tableBytes, tableBytes // twice as much for each level below
	p.Experimental.CompactionScheduler = &giveway.Compactions{}
	// Garbage by itself is no reason to hurry: what writes do is.
	p.Experimental.CompactionGarbageFractionForMaxConcurrency = func() float64 { return 0 }
	p.Experimental.ShortAttributeExtractor = shortAttribute
	p.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled: true, MinimumSize: apartBytesMin, MaxBlobReferenceDepth: apartDepthMax,
			RewriteMinimumAge: apartAgeMin, TargetGarbageRatio: apartGarbageMax,
		}
	}
	for i := range p.Levels {
		p.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
		p.Levels[i].FilterPolicy = bloom.FilterPolicy(10) // 1 % false positives; over prefixes, so over user keys
		// A table has one block of index: another to find that takes a sixth of what looking a key up costs.
		p.Levels[i].IndexBlockSize = 256 << 10
	}
	p.EventListener = events(o.Logger, failures, unflushed)
	if o.tune != nil {
		o.tune(p)
	}
	p.EnsureDefaults()
	return p
}

// events logs what an operator should hear of. Everything else is in Metrics.
func events(log *slog.Logger, failures *failures, unflushed *unflushed) *pebble.EventListener {
	return &pebble.EventListener{
		FlushEnd: unflushed.flushed,
		BackgroundError: func(err error) {
			if errors.Is(err, pebble.ErrCancelledCompaction) { // by a Replace, whose Sync must not fail for it
				return
			}
			failures.note(err)
			log.Error("store: background work failed, and is tried again", "err", err.Error()) // without a stack
		},
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			log.Error("store: a file is corrupt; restore this replica from its peers", "path", i.Path, "err", i.Details)
		},
		WriteStallBegin: func(i pebble.WriteStallBeginInfo) { log.Warn("store: writes stall", "reason", i.Reason) },
		WriteStallEnd:   func() { log.Info("store: writes go on") },
		LowDiskSpace: func(i pebble.LowDiskSpaceInfo) {
			log.Warn("store: the disk is filling up", "available", i.AvailBytes, "total", i.TotalBytes, "left_percent", i.PercentThreshold)
		},
	}
}

// diskSlow is how long one operation may take before the operator hears of it.
const diskSlow = 5 * time.Second

// watchDisk reports slow operations of the file system until closed. (Pebble can do
// the same, but forgets to end it when a store cannot be opened.)
func watchDisk(fs vfs.FS, log *slog.Logger) (vfs.FS, io.Closer) {
	return vfs.WithDiskHealthChecks(fs, diskSlow, nil, func(i vfs.DiskSlowInfo) {
		log.Warn("store: the disk is slow", "path", i.Path, "op", i.OpType.String(), "took", i.Duration)
	})
}

// logger gives Pebble an slog.Logger. Its chatter (one line per table) is debugging.
type logger struct{ log *slog.Logger }

func (l logger) Infof(format string, args ...any) {
	l.log.Debug("store: " + fmt.Sprintf(format, args...))
}
func (l logger) Errorf(format string, args ...any) {
	l.log.Error("store: " + fmt.Sprintf(format, args...))
}

// Fatalf must not return: Pebble calls it when going on would lose data.
func (l logger) Fatalf(format string, args ...any) {
	msg := "store: " + fmt.Sprintf(format, args...)
	l.log.Error(msg)
	panic(msg)
}
