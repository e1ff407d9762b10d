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
	// Synced, which must not block, is told how long each sync took.
	Synced func(took time.Duration)

	sizes sizes // tests use smaller ones
}

type sizes struct {
	// segment is where the next one begins. A beginning costs three syncs; what one group still
	// needs of a segment holds up all of it.
	segment int64
	// least is what a segment counts for that is shorter, because every start of the node begins one.
	least int64
	// slack is what the log may take besides three times what counts in it, before that is moved
	// out of the oldest segment. Groups that are equally busy let go of old entries at times of
	// their own, so up to two thirds are of no use for a while without anybody's fault.
	slack int64
	// ahead is by how much a segment grows before it is written to (ahead.go).
	ahead int64
}

func defaultSizes() sizes {
	return sizes{segment: 32 << 20, least: 4 << 20, slack: 64 << 20, ahead: 64 << 10}
}

const (
	// pendingBytes is how much that nobody waits for is kept until there is something to wait for.
	pendingBytes = 64 << 10
	// keptBytes is how large a buffer is kept for the next records.
	keptBytes = 4 << 20
	// moveBytes is how much of a replica's entries is read and moved at a time, about.
	moveBytes = 1 << 20
)
