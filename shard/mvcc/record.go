package mvcc

import (
	"encoding/binary"
	"fmt"
	"math"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// Header is a version's metadata, without its value.
type Header struct {
	Create, Mod    shard.Revision
	Version, Lease int64
	// Sub is the position of the change inside its transaction, from 0. Headers that a Writer finds
	// do not have it.
	Sub     uint32
	Deleted bool
}

// Record of a version, the value under its data key (docs/FORMATS.md):
//
//	format(1) ‖ flags(1) ‖ sub                                      if deleted
//	format(1) ‖ flags(1) ‖ sub ‖ value…                             if first
//	format(1) ‖ flags(1) ‖ sub ‖ age ‖ version ‖ lease ‖ value…     otherwise
//
// Numbers are unsigned varints; age is mod - create, for it is short where create is
// long. The flags sit where the engine can tell them without the value.
const (
	recordFormat = 2

	flagDeleted = 1 << 0
	// flagFirst is of a version that is its key's first, without a lease: its revision says the
	// rest. Of many keys that are written once the value need not be read to write them again.
	flagFirst = 1 << 1

	recordHeaderMax = 2 + 4*binary.MaxVarintLen64
)

// appendHeader appends the record up to the value, which follows it unless h.Deleted.
func appendHeader(dst []byte, h Header) []byte {
	flags := h.flags()
	dst = append(dst, recordFormat, flags)
	dst = binary.AppendUvarint(dst, uint64(h.Sub))
	if flags != 0 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(h.Mod-h.Create))
	dst = binary.AppendUvarint(dst, uint64(h.Version))
	return binary.AppendUvarint(dst, uint64(h.Lease))
}

// flags are 0 where more must be known than them, the revision and sub.
func (h *Header) flags() byte {
	switch {
	case h.Deleted:
		return flagDeleted
	case h.Create == h.Mod && h.Version == 1 && h.Lease == 0:
		return flagFirst
	default:
		return 0
	}
}

// flagged returns the header of a version stored at revision mod but for its sub, if its flags
// tell.
func flagged(flags byte, mod shard.Revision) (Header, bool) {
	switch flags {
	case flagDeleted:
		return Header{Mod: mod, Deleted: true}, true
	case flagFirst:
		return Header{Create: mod, Mod: mod, Version: 1}, true
	default:
		return Header{Mod: mod}, false
	}
}

// decodeRecord reads a record stored at revision mod. value aliases rec.
func decodeRecord(rec []byte, mod shard.Revision) (h Header, value []byte, err error) {
	if len(rec) < 3 || rec[0] != recordFormat {
		return Header{}, nil, recordError(rec)
	}
	flags := rec[1]
	h, short := flagged(flags, mod)
	d := uvarints{rest: rec[2:]}
	sub := d.next()
	h.Sub = uint32(sub)
	d.bad = d.bad || sub > math.MaxUint32
	if !short {
		age := d.next()
		h.Create = mod - shard.Revision(age)
		d.bad = d.bad || age >= uint64(mod)
		h.Version = int64(d.next())
		h.Lease = int64(d.next())
	}
	// Each header has one record.
	if d.bad || h.flags() != flags || h.Deleted && len(d.rest) != 0 {
		return Header{}, nil, recordError(rec)
	}
	if h.Deleted {
		return h, nil, nil
	}
	return h, d.rest, nil
}

func recordError(rec []byte) error {
	return fmt.Errorf("version record of %d bytes starting %x: %w", len(rec), rec[:min(len(rec), 8)], shard.ErrCorrupt)
}

// uvarints takes numbers off the front of rest; bad stays set once one was malformed.
type uvarints struct {
	rest []byte
	bad  bool
}

func (d *uvarints) next() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// fill sets kv to what etcd clients see of the version.
func (h *Header) fill(kv *mvccpb.KeyValue) {
	kv.CreateRevision = int64(h.Create)
	kv.ModRevision = int64(h.Mod)
	kv.Version = h.Version
	kv.Lease = h.Lease
}
