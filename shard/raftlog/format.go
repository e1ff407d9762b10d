package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/lni/dragonboat/v4/raftio"
)

// A segment is a header and then records, each written whole (docs/FORMATS.md draws them). Numbers
// are big endian:
//
//	header   magic(8) ‖ number(8) ‖ length of the segment before(8) ‖ its total(4) ‖ sum(4)
//	record   sum(4) ‖ durable(8) ‖ length(4) ‖ items
//	item     kind(1) ‖ shard(8) ‖ replica(8) ‖ length(4) ‖ body
//	entry    sum(4) ‖ length(4) ‖ raftpb.Entry
const (
	headerLength     = 32
	recordHeadLength = 16
	itemHeadLength   = 21
	entryHeadLength  = 8
)

// magic begins every segment. The last byte is the format.
const (
	magic        = "FLTRLOG\x03"
	earlierMagic = "FLTRLOG\x02"
)

type kind byte

const (
	kindBootstrap kind = iota + 1 // dragonboat's Bootstrap: the group's first members
	kindState                     // its State: term, vote, commit index
	kindSnapshot                  // its Snapshot: the record of the last one
	kindEntries                   // first index(8), entries: they take the place of all from there on
	kindMoved                     // first index(8), entries: they are here now, and change nothing
	kindRemoved                   // index(8): the entries up to there are gone
	kindGone                      // the replica is
	kindOldest                    // number(8): the oldest segment there is, or the one before; of no replica
	kindFollowed                  // behind the end of a segment: there is a next one; of no replica
)

// recordKinds is the number of kinds of which a replica has one record each.
const recordKinds = 3

const (
	segmentSuffix = ".seg"
	spareName     = "spare" // was a segment, may become one
	newName       = "new"   // is about to become one
)

func segmentName(number uint32) string { return fmt.Sprintf("%010d%s", number, segmentSuffix) }

// segmentNumber reports whether a file is a segment, and which.
func segmentNumber(name string) (number uint32, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok {
		return 0, false
	}
	if _, err := fmt.Sscanf(digits, "%d", &number); err != nil || segmentName(number) != name {
		return 0, false
	}
	return number, true
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sumOf(data []byte) uint32 { return crc32.Checksum(data, castagnoli) }

// recordSum covers what follows the checksum in a record. It includes the segment's number, so that
// in a file that was another segment before, that segment's records are not valid.
func recordSum(number uint32, data []byte) uint32 {
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], number)
	return crc32.Update(sumOf(n[:]), castagnoli, data)
}

// extent is the length and the total checksum of a segment. The next segment's header contains that
// of the previous one, so that no segment can take the place of another.
type extent struct {
	size  int64
	total uint32 // sum of the sums of its header and of its records
}

// with is the extent after a record, or the header, is added.
func (e extent) with(length int, sum []byte) extent {
	return extent{e.size + int64(length), crc32.Update(e.total, castagnoli, sum[:4])}
}

func appendHeader(dst []byte, number uint32, before extent) []byte {
	dst = append(dst, magic...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(number))
	dst = binary.BigEndian.AppendUint64(dst, uint64(before.size))
	dst = binary.BigEndian.AppendUint32(dst, before.total)
	return binary.BigEndian.AppendUint32(dst, sumOf(dst))
}

// headerExtent is the extent of a segment that has only its header.
func headerExtent(header []byte) extent {
	return extent{}.with(headerLength, header[headerLength-4:])
}

// decodeHeader returns the extent of the previous segment.
func decodeHeader(data []byte, number uint32) (before extent, err error) {
	switch {
	case len(data) == 0:
		return extent{}, errors.New("it is empty")
	case len(data) < headerLength || sumOf(data[:headerLength-4]) != binary.BigEndian.Uint32(data[headerLength-4:]):
		return extent{}, errors.New("its header is damaged")
	case string(data[:8]) != magic:
		return extent{}, fmt.Errorf("it has format %q, not %q", data[:8], magic)
	case binary.BigEndian.Uint64(data[8:]) != uint64(number):
		return extent{}, fmt.Errorf("it is segment %d", binary.BigEndian.Uint64(data[8:]))
	}
	return extent{int64(binary.BigEndian.Uint64(data[16:])), binary.BigEndian.Uint32(data[24:])}, nil
}

// beginRecord appends room for a record's head, and endRecord fills it in, once the record is
// complete.
func beginRecord(dst []byte) []byte { return append(dst, make([]byte, recordHeadLength)...) }

func endRecord(record []byte, number uint32, durable int64) {
	binary.BigEndian.PutUint64(record[4:], uint64(durable))
	binary.BigEndian.PutUint32(record[12:], uint32(len(record)-recordHeadLength))
	binary.BigEndian.PutUint32(record, recordSum(number, record[4:]))
}

// recordAt returns the record at the beginning of data, and how far the segment was durable when it
// was written. ok is false if there is none.
func recordAt(data []byte, number uint32) (items []byte, durable int64, ok bool) {
	if len(data) < recordHeadLength {
		return nil, 0, false
	}
	length := int64(binary.BigEndian.Uint32(data[12:]))
	if length == 0 || length > int64(len(data)-recordHeadLength) {
		return nil, 0, false
	}
	end := recordHeadLength + length
	if recordSum(number, data[4:end]) != binary.BigEndian.Uint32(data) {
		return nil, 0, false
	}
	return data[recordHeadLength:end], int64(binary.BigEndian.Uint64(data[4:])), true
}

// beginItem appends an item's head; endItem fills in the length of the body.
func beginItem(dst []byte, k kind, id raftio.NodeInfo) []byte {
	dst = append(dst, byte(k))
	dst = binary.BigEndian.AppendUint64(dst, id.ShardID)
	dst = binary.BigEndian.AppendUint64(dst, id.ReplicaID)
	return append(dst, 0, 0, 0, 0)
}

func endItem(item []byte) {
	binary.BigEndian.PutUint32(item[itemHeadLength-4:], uint32(len(item)-itemHeadLength))
}

type item struct {
	kind kind
	id   raftio.NodeInfo
	body []byte
}

// itemAt removes the first item.
func itemAt(data []byte) (it item, rest []byte, ok bool) {
	if len(data) < itemHeadLength {
		return item{}, nil, false
	}
	length := int64(binary.BigEndian.Uint32(data[itemHeadLength-4:]))
	if length > int64(len(data)-itemHeadLength) {
		return item{}, nil, false
	}
	return item{
		kind: kind(data[0]),
		id:   raftio.GetNodeInfo(binary.BigEndian.Uint64(data[1:]), binary.BigEndian.Uint64(data[9:])),
		body: data[itemHeadLength : itemHeadLength+length],
	}, data[itemHeadLength+length:], true
}

func endEntry(entry []byte) {
	binary.BigEndian.PutUint32(entry, sumOf(entry[entryHeadLength:]))
	binary.BigEndian.PutUint32(entry[4:], uint32(len(entry)-entryHeadLength))
}

// entryLengthAt is the length of the entry at the beginning of data, including its head.
func entryLengthAt(data []byte) (length int64, ok bool) {
	if len(data) < entryHeadLength {
		return 0, false
	}
	length = entryHeadLength + int64(binary.BigEndian.Uint32(data[4:]))
	return length, length <= int64(len(data))
}

// entryMessage returns the message in an entry's frame.
func entryMessage(frame []byte) (message []byte, ok bool) {
	message = frame[entryHeadLength:]
	return message, sumOf(message) == binary.BigEndian.Uint32(frame)
}
