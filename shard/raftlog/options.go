package raftlog

import (
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// Options of a Log. The zero value is a good default.
type Options struct {
	FS         vfs.FS
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Synced, which must not block, is called with the duration of each sync.
	Synced func(took time.Duration)

	sizes sizes // tests use smaller ones
}

type sizes struct {
	// segment is the size from which on the next segment is begun. Beginning one costs three syncs;
	// a single group that still needs part of a segment retains all of it.
	segment int64
	// least is the size as which a shorter segment counts, because every start of the node begins
	// one.
	least int64
	// slack is the size that the log may have in addition to three times what is in use, before
	// records in use are moved out of the oldest segment. Equally busy groups delete old entries at
	// different times, so up to two thirds are unused for a while in normal operation.
	slack int64
	// ahead is by how much a segment is extended before it is written to (ahead.go).
	ahead int64
}

func defaultSizes() sizes {
	return sizes{segment: 32 << 20, least: 4 << 20, slack: 64 << 20, ahead: 64 << 10}
}

const (
	// pendingBytes is how much is buffered that nobody waits for, until there is something to wait
	// for.
	pendingBytes = 64 << 10
	// keptBytes is the maximum size of a buffer that is kept for the next records.
	keptBytes = 4 << 20
	// moveBytes is about how much of a replica's entries is read and moved at a time.
	moveBytes = 1 << 20
)
