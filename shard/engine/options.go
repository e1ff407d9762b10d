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
	// CacheBytes bounds the cache of table blocks, memtables included. Default: 128 MiB. It is the node's largest
	// block of memory, shared by all shards.
	CacheBytes int64
	// Logger receives the store's warnings: stalls, slow disks, background errors. Default: nothing is logged.
	Logger *slog.Logger

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

// pebbleFormat is the on-disk format we ask Pebble for. A store cannot go back from a higher one, so raising it also
// requires a new Format of ours (marker.go).
const pebbleFormat = pebble.FormatValueSeparation

const (
	memTableBytes = 16 << 20 // memtables grow to this from 256 KiB; larger means rarer flushes, longer restarts and more memory
	memTablesMax  = 6        // writes stall beyond this; with the size above, 96 MiB of unflushed data
)

// Sizes of tables and levels. Pebble includes the values that are stored in separate files.
const (
	// tableBytes is about what a flush writes, so that a flush makes one table and one file of values. With Pebble's
	// default of 2 MiB, creating the files cost more than writing their contents.
	tableBytes = 16 << 20
	// baseLevelBytes is about what a compaction of L0 adds to the base level, which is rewritten each time.
	baseLevelBytes = 256 << 20
)

// Values above a minimum length are written only once, by the flush, into files of their own. Compactions then move
// only keys. Rewriting values made up a quarter of a put's cost to a server.
const (
	// apartBytesMin is the smallest value that is stored separately. A shorter one takes hardly more space than a
	// pointer to it.
	apartBytesMin = 128
	// apartDepthMax bounds over how many such files the values of neighbouring keys may be spread, which is how many
	// a range has to read. Beyond it, a compaction brings the values together. Every sublevel of L0 in the compaction
	// counts, and a compaction takes thirty-two: with 64 every second one would rewrite the values.
	apartDepthMax = 256
	// apartAgeMin and apartGarbageMax: a file older than this is rewritten once more than this part of it is garbage.
	apartAgeMin     = time.Minute
	apartGarbageMax = 0.4
)

func (o Options) pebble(failures *failures, unflushed *unflushed) *pebble.Options {
	p := &pebble.Options{
		FS:                          &giveway.FS{FS: failures, Hurry: unflushed.urgent},
		Logger:                      logger{o.Logger},
		Comparer:                    comparer,
		KeySchema:                   keySchema.Name,
		KeySchemas:                  sstable.MakeKeySchemas(keySchema),
		FormatMajorVersion:          pebbleFormat,
		DisableWAL:                  true, // the Raft log serves as the WAL
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: memTablesMax,
		// Thirty-two sublevels, because Pebble counts each twice. Every compaction of L0 rewrites much of the next level,
		// so one after every flush cost more than the flush itself. In return, removals may stay in L0 until Tidy, and tables
		// that reads look into until ShortenReads.
		L0CompactionThreshold: 64,
		// High, because a stall of L0 stalls every shard of the node at once.
		L0StopWritesThreshold: 256,
		LBaseMaxBytes:         baseLevelBytes,
		// Two at most, because the Raft log needs the machine too.
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
		// Removing a large old span must not keep the disk busy for seconds.
		TargetByteDeletionRate:  128 << 20,
		BlockPropertyCollectors: []func() pebble.BlockPropertyCollector{newRevisionCollector},
	}
	p.TargetFileSizes[0], p.TargetFileSizes[1] = tableBytes, tableBytes // doubles with each lower level
	p.Experimental.CompactionScheduler = &giveway.Compactions{}
	// Garbage alone is no reason to hurry. A backlog of writes is.
	p.Experimental.CompactionGarbageFractionForMaxConcurrency = func() float64 { return 0 }
	p.Experimental.ShortAttributeExtractor = shortAttribute
	p.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled: true, MinimumSize: apartBytesMin, MaxBlobReferenceDepth: apartDepthMax,
			RewriteMinimumAge: apartAgeMin, TargetGarbageRatio: apartGarbageMax,
		}
	}
	compression := adaptive()
	for i := range p.Levels {
		p.Levels[i].Compression = func() *sstable.CompressionProfile { return compression }
		p.Levels[i].FilterPolicy = bloom.FilterPolicy(10) // 1 % false positives; built over prefixes, and so over user keys
		// A table has a single index block: finding a second one would take a sixth of the cost of looking up a key.
		p.Levels[i].IndexBlockSize = 256 << 10
	}
	p.EventListener = events(o.Logger, failures, unflushed)
	if o.tune != nil {
		o.tune(p)
	}
	p.EnsureDefaults()
	return p
}

// compressedMin is by how many percent compression must shrink a block to be worth decompressing it.
const compressedMin = 12

// adaptive compresses blocks of keys and of values with Snappy as long as that shrinks them. Where it does not, only
// every tenth block is tried. What it falls back on is what Pebble stores all other blocks with, so indexes and filters
// are not compressed.
func adaptive() *sstable.CompressionProfile {
	snappy, none := sstable.SnappyCompression.DataBlocks, sstable.NoCompression.DataBlocks
	return &sstable.CompressionProfile{
		Name: "Snappy or none", DataBlocks: snappy, ValueBlocks: snappy, OtherBlocks: none,
		MinReductionPercent: compressedMin, AdaptiveReductionCutoffPercent: compressedMin,
	}
}

// events logs what an operator should hear of. Everything else is in Metrics.
func events(log *slog.Logger, failures *failures, unflushed *unflushed) *pebble.EventListener {
	return &pebble.EventListener{
		FlushEnd: unflushed.flushed,
		BackgroundError: func(err error) {
			if errors.Is(err, pebble.ErrCancelledCompaction) { // cancelled by a Replace, whose Sync must not fail because of it
				return
			}
			failures.note(err)
			log.Error("store: background work failed, and is tried again", "err", err.Error()) // without the stack trace
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

// diskSlow is how long an operation may take before it is reported to the operator.
const diskSlow = 5 * time.Second

// watchDisk reports slow operations of the file system until it is closed. (Pebble can do the same, but does not stop
// if the store cannot be opened.)
func watchDisk(fs vfs.FS, log *slog.Logger) (vfs.FS, io.Closer) {
	return vfs.WithDiskHealthChecks(fs, diskSlow, nil, func(i vfs.DiskSlowInfo) {
		log.Warn("store: the disk is slow", "path", i.Path, "op", i.OpType.String(), "took", i.Duration)
	})
}

// logger adapts an slog.Logger to Pebble. Pebble's routine messages (one line per table) become debug messages.
type logger struct{ log *slog.Logger }

func (l logger) Infof(format string, args ...any) {
	l.log.Debug("store: " + fmt.Sprintf(format, args...))
}
func (l logger) Errorf(format string, args ...any) {
	l.log.Error("store: " + fmt.Sprintf(format, args...))
}

// Fatalf must not return: Pebble calls it when continuing would lose data.
func (l logger) Fatalf(format string, args ...any) {
	msg := "store: " + fmt.Sprintf(format, args...)
	l.log.Error(msg)
	panic(msg)
}
