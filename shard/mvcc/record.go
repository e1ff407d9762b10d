package mvcc

import (
	"encoding/binary"
	"fmt"
	"math"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// Header is what is known of a version without its value.
type Header struct {
	Create, Mod    shard.Revision
	Version, Lease int64
	// Sub is the place of the change inside its transaction, from 0.
	Sub     uint32
	Deleted bool
}

// Record of a version, the value under its data key (docs/FORMATS.md):
//
//	format(1) ‖ flags(1) ‖ sub
//	format(1) ‖ flags(1) ‖ sub ‖ age ‖ version ‖ lease ‖ value…     unless deleted
//
// Numbers are unsigned varints; age is mod - create, for it is short where create is
// long. The flags sit where the engine can tell them without the value.
const (
	recordFormat = 1

	flagDeleted = 1 << 0
	flagsKnown  = flagDeleted

	recordHeaderMax = 2 + 4*binary.MaxVarintLen64
)

// appendHeader appends the record up to the value, which follows it unless h.Deleted.
func appendHeader(dst []byte, h Header) []byte {
	if h.Deleted {
		dst = append(dst, recordFormat, flagDeleted)
		return binary.AppendUvarint(dst, uint64(h.Sub))
	}
	dst = append(dst, recordFormat, 0)
	dst = binary.AppendUvarint(dst, uint64(h.Sub))
	dst = binary.AppendUvarint(dst, uint64(h.Mod-h.Create))
	dst = binary.AppendUvarint(dst, uint64(h.Version))
	return binary.AppendUvarint(dst, uint64(h.Lease))
}

// decodeRecord reads a record stored at revision mod. value aliases rec.
func decodeRecord(rec []byte, mod shard.Revision) (h Header, value []byte, err error) {
	if len(rec) < 3 || rec[0] != recordFormat || rec[1]&^flagsKnown != 0 {
		return Header{}, nil, recordError(rec)
	}
	h = Header{Mod: mod, Deleted: rec[1]&flagDeleted != 0}
	d := uvarints{rest: rec[2:]}
	sub := d.next()
	h.Sub = uint32(sub)
	d.bad = d.bad || sub > math.MaxUint32
	if h.Deleted {
		if d.bad || len(d.rest) != 0 {
			return Header{}, nil, recordError(rec)
		}
		return h, nil, nil
	}
	age := d.next()
	h.Create = mod - shard.Revision(age)
	d.bad = d.bad || age >= uint64(mod)
	h.Version = int64(d.next())
	h.Lease = int64(d.next())
	if d.bad {
		return Header{}, nil, recordError(rec)
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
