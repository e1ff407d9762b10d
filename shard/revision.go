package shard

import (
	"strconv"
	"time"
)

// Revision orders writes. It is what etcd clients see as header.revision and
// mod_revision: strictly increasing per shard, unique in the cluster, with gaps.
// Layout: Tick in the high bits, the shard's Slot in the low 8. It stays below
// 2^53 until 2052, so tools that read JSON numbers as float64 keep it whole.
type Revision int64

// FirstRevision is the revision of an empty store, as in etcd.
const FirstRevision Revision = 1

// Tick is a time in units of 25 µs since 2025-01-01T00:00:00Z. Only proposers
// read a clock; the tick travels in the command (R3).
type Tick int64

// TickUnit is the length of one Tick.
const TickUnit = 25 * time.Microsecond

// Slot distinguishes the revisions of shards. The meta group assigns it: unique while there are at
// most 256 shards, afterwards the least used one.
type Slot uint8

const slotBits = 8

// tickEpochUnixMicro is 2025-01-01T00:00:00Z.
const tickEpochUnixMicro = 1735689600 * 1_000_000

// TickAt converts a wall-clock time. Times before the epoch give 0.
func TickAt(t time.Time) Tick {
	return Tick(max(0, (t.UnixMicro()-tickEpochUnixMicro)/TickUnit.Microseconds()))
}

// Time is the wall-clock time the tick stands for.
func (t Tick) Time() time.Time {
	return time.UnixMicro(tickEpochUnixMicro + int64(t)*TickUnit.Microseconds())
}

// Revision is the smallest revision of the tick.
func (t Tick) Revision() Revision { return Revision(t) << slotBits }

// Tick is the time part of the revision.
func (r Revision) Tick() Tick { return Tick(r >> slotBits) }

// Slot is the shard part of the revision.
func (r Revision) Slot() Slot { return Slot(r & (1<<slotBits - 1)) }

func (r Revision) String() string { return strconv.FormatInt(int64(r), 10) }

// NextRevision is the smallest revision of the slot that is above floor and not before stamp. It is
// the only place where revisions are made (R1, R2, R3).
func NextRevision(floor Revision, stamp Tick, slot Slot) Revision {
	tick := max(floor.Tick(), stamp)
	r := Revision(tick)<<slotBits | Revision(slot)
	if r <= floor {
		r += 1 << slotBits
	}
	return r
}
