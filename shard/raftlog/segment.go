package raftlog

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/raftio"

	"github.com/flotilla-kv/flotilla/shard"
)

// segment is one file of the log. Its mutable fields are guarded by Log.mu.
type segment struct {
	number  uint32
	file    vfs.File
	extent        // what was appended to it, and of the newest one what is still to be written
	durable int64 // up to where it is synced, as far as known
	live    int64 // bytes of entries and records in it that count

	readers int  // who is reading from it
	gone    bool // the last reader closes it
}

// folder is the folder with the segments.
type folder struct {
	fs    vfs.FS
	path  string
	ahead int64 // sizes.ahead
}

func (f folder) join(name string) string { return f.fs.PathJoin(f.path, name) }

// make creates the folder, durably.
func (f folder) make() error {
	if err := f.fs.MkdirAll(f.path, 0o755); err != nil {
		return err
	}
	return syncDir(f.fs, f.fs.PathDir(f.path))
}

func (f folder) sync() error { return syncDir(f.fs, f.path) }

func syncDir(fs vfs.FS, path string) error {
	d, err := fs.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// open opens a file, creating it if it does not exist.
func (f folder) open(name string) (vfs.File, error) {
	file, err := f.fs.OpenReadWrite(f.join(name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	stat, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &aheadFile{File: file, filled: stat.Size(), by: f.ahead}, nil
}

// begin creates the given segment, from the spare file if there is one (not nil). The file gets its
// name only once its header is durable, so a segment whose header cannot be read is damaged.
func (f folder) begin(number uint32, before extent, spare vfs.File) (_ *segment, err error) {
	file, name := spare, spareName
	if file == nil {
		name = newName
		if file, err = f.open(name); err != nil {
			return nil, fmt.Errorf("create segment %d: %w", number, err)
		}
	}
	header := appendHeader(nil, number, before)
	_, err = file.WriteAt(header, 0)
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = f.fs.Rename(f.join(name), f.join(segmentName(number)))
	}
	if err == nil {
		err = f.sync()
	}
	if err != nil {
		return nil, fmt.Errorf("begin segment %d: %w", number, errors.Join(err, file.Close()))
	}
	return &segment{number: number, file: file, extent: headerExtent(header), durable: headerLength}, nil
}

// secure makes durable what was found in a segment at startup. Syncing is not enough: after a
// failed sync the kernel considers the unwritten data written, and returns it until it needs the
// memory. So data that is not known to be on the disk is written once more. While a sync fails for
// one segment, another goroutine may continue in the next one, so this applies to the one before
// the newest, too.
func (s *segment) secure() error {
	if s.durable == s.size {
		return nil
	}
	data := make([]byte, s.size-s.durable)
	_, err := io.ReadFull(io.NewSectionReader(s.file, s.durable, int64(len(data))), data)
	if err == nil {
		_, err = s.file.WriteAt(data, s.durable)
	}
	if err == nil {
		err = s.file.SyncData()
	}
	if err != nil {
		return fmt.Errorf("make segment %d durable: %w", s.number, err)
	}
	s.durable = s.size
	return nil
}

// follow records in a segment that there is another one after it, before anything in that one
// counts: if the later one were lost, the log would seem to end here. This record is not part of
// the segment: its end is what the next one says.
func (f folder) follow(s *segment) error {
	record := beginItem(beginRecord(nil), kindFollowed, raftio.NodeInfo{})
	endRecord(record, s.number, s.size)
	_, err := s.file.WriteAt(record, s.size)
	if err == nil {
		err = s.file.SyncData()
	}
	if err != nil {
		return fmt.Errorf("end segment %d: %w", s.number, err)
	}
	return nil
}

// drop deletes a segment's file, or makes it the spare file. This is durable before the spare is
// written to, or another segment is deleted, so that a segment is never missing between two others.
func (f folder) drop(s *segment, keep bool) error {
	name := f.join(segmentName(s.number))
	var err error
	if keep {
		err = f.fs.Rename(name, f.join(spareName))
	} else {
		err = f.fs.Remove(name)
	}
	if err == nil {
		err = f.sync()
	}
	if err != nil {
		return fmt.Errorf("drop segment %d: %w", s.number, err)
	}
	return nil
}

// corrupt is the error of a segment that is not as it was written.
func (f folder) corrupt(number uint32, format string, args ...any) error {
	return fmt.Errorf("segment %s: %w: %w", f.join(segmentName(number)), fmt.Errorf(format, args...), shard.ErrCorrupt)
}

// readEntry reads the frame of the entry at a place of the segment into buf.
func (s *segment) readEntry(f folder, p place, buf []byte) (frame, message []byte, err error) {
	if cap(buf) < int(p.length) {
		buf = make([]byte, p.length)
	}
	frame = buf[:p.length]
	if _, err := s.file.ReadAt(frame, int64(p.offset)); err != nil {
		return nil, nil, fmt.Errorf("read segment %d at %d: %w", s.number, p.offset, err)
	}
	length, whole := entryLengthAt(frame)
	message, sound := entryMessage(frame)
	if !whole || length != int64(len(frame)) || !sound {
		return nil, nil, f.corrupt(s.number, "the entry at %d is not what was written", p.offset)
	}
	return frame, message, nil
}
