package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/flotilla-kv/flotilla/shard"
)

// load reads the folder's segments, and begins a new one. Nothing is appended to a segment that a
// crash may have torn: its successor says where it ends.
func (l *Log) load() error {
	if err := l.folder.make(); err != nil {
		return err
	}
	numbers, err := l.folder.segments()
	if err != nil {
		return err
	}
	if len(numbers) == 0 {
		return l.begin(l.first, extent{})
	}
	ends, err := l.openSegments(numbers)
	if err != nil {
		return err
	}
	var buf []byte
	for i, s := range l.segments {
		if buf, err = l.readSegment(s, ends[i], buf); err != nil {
			return err
		}
	}
	if err := errors.Join(l.checkFirst(), l.whole()); err != nil {
		return err
	}
	n := len(l.segments)
	for _, s := range l.segments[max(0, n-2):] { // what was found there counts from now on
		if err := s.secure(); err != nil {
			return err
		}
	}
	if n > 1 { // a crash may have come before it was noted
		if err := l.folder.follow(l.segments[n-2]); err != nil {
			return err
		}
	}
	return l.succeed(l.newest())
}

// segments lists the segments in the folder, and removes unfinished ones.
func (f folder) segments() (numbers []uint32, err error) {
	names, err := f.fs.List(f.path)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if number, ok := segmentNumber(name); ok {
			numbers = append(numbers, number)
			continue
		}
		if name != spareName && name != newName {
			return nil, fmt.Errorf("%s is none of its files; if it was put there by mistake, move it elsewhere", f.join(name))
		}
		if err := f.fs.Remove(f.join(name)); err != nil {
			return nil, err
		}
	}
	slices.Sort(numbers)
	for i, number := range numbers {
		if missing := numbers[0] + uint32(i); number != missing {
			return nil, f.corrupt(missing, "it is missing")
		}
	}
	return numbers, f.sync()
}

// openSegments returns the extent of each segment, none for the newest, whose end must be
// determined.
func (l *Log) openSegments(numbers []uint32) (ends []extent, err error) {
	for i, number := range numbers {
		file, err := l.folder.open(segmentName(number))
		if err != nil {
			return nil, err
		}
		s := &segment{number: number, file: file}
		l.segments = append(l.segments, s)
		header := make([]byte, headerLength)
		n, err := file.ReadAt(header, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read segment %d: %w", number, err)
		}
		if bytes.HasPrefix(header, []byte(earlierMagic)) {
			return nil, errEarlier(l.folder.path)
		}
		before, err := decodeHeader(header[:n], number)
		if err != nil {
			return nil, l.folder.corrupt(number, "%w", err)
		}
		s.extent, s.durable = headerExtent(header), headerLength
		if i > 0 {
			ends = append(ends, before)
		}
	}
	return append(ends, extent{}), nil
}

// readSegment loads a segment. It reads into buf, which it returns.
func (l *Log) readSegment(s *segment, told extent, buf []byte) ([]byte, error) {
	stat, err := s.file.Stat()
	if err != nil {
		return nil, err
	}
	newest, end := told == (extent{}), told.size
	if newest {
		end = stat.Size()
	}
	if end > stat.Size() {
		return nil, l.folder.corrupt(s.number, "it has %d bytes, not %d", stat.Size(), end)
	}
	data := slices.Grow(buf[:0], int(end))[:end]
	if _, err := s.file.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read segment %d: %w", s.number, err)
	}
	for s.size < end {
		items, durable, ok := recordAt(data[s.size:], s.number)
		if !ok {
			break
		}
		s.durable = durable
		at := s.size + recordHeadLength
		if kind(items[0]) == kindFollowed {
			return nil, l.folder.corrupt(s.number+1, "it is missing")
		}
		s.extent = s.with(recordHeadLength+len(items), data[s.size:])
		if err := l.readItems(s, items, at); err != nil {
			return nil, err
		}
	}
	switch {
	case s.size < end && (!newest || wasDurable(data, s.size, s.number)):
		return nil, l.folder.corrupt(s.number, "it cannot be read from %d on", s.size)
	case !newest && s.extent != told:
		return nil, l.folder.corrupt(s.number, "it is not the one that %s was begun behind: one of them is of another log, or of another time",
			segmentName(s.number+1))
	}
	return data, nil
}

// wasDurable reports whether the newest segment was synced beyond an offset, as a later record
// would say. After a tear there is no such record.
func wasDurable(data []byte, at int64, number uint32) bool {
	for i := at + 1; i+recordHeadLength <= int64(len(data)); i++ {
		durable := int64(binary.BigEndian.Uint64(data[i+4:]))
		if durable <= at || durable > i {
			continue // before the sum of what is none is made
		}
		if _, _, ok := recordAt(data[i:], number); ok {
			return true
		}
	}
	return false
}

// readItems loads a record's items, which are at an offset of the segment.
func (l *Log) readItems(s *segment, items []byte, at int64) error {
	for rest := items; len(rest) > 0; {
		it, next, ok := itemAt(rest)
		if !ok {
			return l.folder.corrupt(s.number, "the item at %d is not whole", at)
		}
		if err := l.readItem(s, it, at+itemHeadLength); err != nil {
			return l.folder.corrupt(s.number, "the item at %d, of shard %d: %w", at, it.id.ShardID, err)
		}
		at += int64(len(rest) - len(next))
		rest = next
	}
	return nil
}

// readItem loads an item, whose body is at an offset of the segment.
func (l *Log) readItem(s *segment, it item, at int64) error {
	if it.kind == kindOldest {
		return l.readOldest(it.body)
	}
	r := l.replica(it.id)
	switch it.kind {
	case kindBootstrap, kindState, kindSnapshot:
		return l.setRecord(r, it.kind, it.body, s.number)
	case kindGone:
		l.forgetReplica(r)
		delete(l.replicas, it.id)
		return nil
	}
	if len(it.body) < 8 {
		return errors.New("it has no index")
	}
	index := binary.BigEndian.Uint64(it.body)
	switch it.kind {
	case kindRemoved:
		l.removeEntries(r, index)
		return nil
	case kindEntries, kindMoved:
		places, err := placesIn(it.body[8:], s.number, at+8)
		if err != nil {
			return err
		}
		if it.kind == kindEntries {
			l.setEntries(r, index, places)
		} else {
			l.setMoved(r, index, places)
		}
		return nil
	}
	return fmt.Errorf("kind %d is unknown", it.kind)
}

func (l *Log) readOldest(body []byte) error {
	if len(body) != 8 {
		return errors.New("it has no number")
	}
	l.first = uint32(binary.BigEndian.Uint64(body))
	return nil
}

// checkFirst checks that the oldest segment is present, and is not one that was deleted. Its
// predecessor may be present: a crash may have happened between recording and performing the
// deletion.
func (l *Log) checkFirst() error {
	switch first := l.segments[0].number; {
	case first > l.first:
		return l.folder.corrupt(first-1, "it is missing")
	case first+1 < l.first:
		return fmt.Errorf("%s was removed when nothing in it counted any more, and is there again; move it elsewhere", l.folder.join(segmentName(first)))
	}
	return nil
}

// placesIn are the places of entries at an offset of a segment.
func placesIn(entries []byte, number uint32, at int64) (places []place, err error) {
	for len(entries) > 0 {
		length, ok := entryLengthAt(entries)
		if !ok {
			return nil, errors.New("an entry is not whole")
		}
		places = append(places, place{segment: number, offset: uint32(at), length: uint32(length)})
		entries, at = entries[length:], at+length
	}
	return places, nil
}

// whole checks that every entry has a place (R3).
func (l *Log) whole() error {
	for id, r := range l.replicas {
		if i := slices.Index(r.places, place{}); i >= 0 {
			return fmt.Errorf("entry %d of shard %d is missing: %w", r.first+uint64(i), id.ShardID, shard.ErrCorrupt)
		}
	}
	return nil
}
