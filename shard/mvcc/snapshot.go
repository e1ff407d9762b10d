package mvcc

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// Snapshot stream (docs/FORMATS.md): frames (frame.go), of which the first is the head,
// the last the tail, and those between hold versions.
//
//	head   magic "FLTS" ‖ format(1) ‖ start ‖ end ‖ state       each: uvarint length ‖ bytes
//	data   versions: shared ‖ rest ‖ revision ‖ record          see appendVersion
//	tail   versions(8) ‖ crc32c of all frames' checksums(4)
//
// Fixed numbers are little endian.
const (
	snapshotMagic  = "FLTS"
	snapshotFormat = 2

	frameHead = 'h'
	frameData = 'd'
	frameTail = 't'

	// frameBytes is where a data frame ends: large enough that frames cost nothing,
	// small enough that a stop is noticed soon.
	frameBytes = 256 << 10
)

// ErrSnapshotStopped: the caller's stop channel was closed.
var ErrSnapshotStopped = errors.New("snapshot stopped")

func stopped(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

// WriteSnapshot writes every version of the span, and the caller's state. r should be a View: its
// contents must not change meanwhile. It reads within the calls of read, a frame in each, and writes outside of them.
func WriteSnapshot(w io.Writer, r engine.Reader, read func(func()), span shard.Span, state []byte, stop <-chan struct{}) error {
	f := &frameWriter{w: w}
	if err := writeSnapshot(f, r, read, span, state, stop); err != nil {
		return fmt.Errorf("write snapshot of %s: %w", span, err)
	}
	return nil
}

func writeSnapshot(f *frameWriter, r engine.Reader, read func(func()), span shard.Span, state []byte, stop <-chan struct{}) (err error) {
	if span.Empty() {
		return errors.New("the span is empty")
	}
	head := append([]byte(snapshotMagic), snapshotFormat)
	head = appendBytes(head, span.Start)
	head = appendBytes(head, span.End)
	head = appendBytes(head, state)
	if err := f.write(frameHead, head); err != nil {
		return err
	}
	lower, upper := engine.DataSpanBounds(span)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()

	p := snapshotReader{it: it}
	for more := true; more; {
		read(func() { more, err = p.next() })
		if err != nil {
			return err
		}
		if stopped(stop) {
			return ErrSnapshotStopped
		}
		if len(p.payload) > 0 {
			if err := f.write(frameData, p.payload); err != nil {
				return err
			}
		}
	}
	tail := binary.LittleEndian.AppendUint64(nil, p.versions)
	return f.write(frameTail, binary.LittleEndian.AppendUint32(tail, f.sums))
}

// snapshotReader reads versions for data frames.
type snapshotReader struct {
	it       *pebble.Iterator
	began    bool
	versions uint64 // so far
	payload  []byte // of the frame
	last     []byte // key in it
}

// next reads a frame, and reports whether there may be more.
func (p *snapshotReader) next() (more bool, err error) {
	p.payload, p.last = p.payload[:0], p.last[:0]
	for len(p.payload) < frameBytes {
		valid := p.began && p.it.Next() || !p.began && p.it.First()
		p.began = true
		if !valid {
			return false, p.it.Error()
		}
		key, rev, err := dataKeyAt(p.it)
		if err != nil {
			return false, err
		}
		rec, err := p.it.ValueAndErr()
		if err != nil {
			return false, err
		}
		p.payload = appendVersion(p.payload, p.last, key, rev, rec)
		p.last = append(p.last[:0], key...)
		p.versions++
	}
	return true, nil
}

// appendVersion appends shared ‖ rest ‖ revision ‖ record: how many bytes the key has
// in common with the last one of the frame, its other bytes, the revision as uvarint,
// the record. rest and record carry their length.
func appendVersion(dst, last, key []byte, rev shard.Revision, rec []byte) []byte {
	shared := 0
	for shared < min(len(last), len(key)) && last[shared] == key[shared] {
		shared++
	}
	dst = binary.AppendUvarint(dst, uint64(shared))
	dst = appendBytes(dst, key[shared:])
	dst = binary.AppendUvarint(dst, uint64(rev))
	return appendBytes(dst, rec)
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// Restore replaces the data of a span by a snapshot. finish receives the snapshot's state and
// returns the span whose data is replaced, the snapshot's or a wider one, and records to set in the
// same atomic step. may is asked, after everything was received, whether the data may still be replaced
// (engine.ReplaceIf). When Restore fails nothing has changed.
func Restore(e *engine.Engine, r io.Reader, stop <-chan struct{}, finish func(state []byte) (shard.Span, []engine.KV, error), may func() error) error {
	s, err := openSnapshot(r)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	span, records, err := finish(s.state)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	if !span.ContainsSpan(s.span) {
		return fmt.Errorf("restore snapshot: it holds %s, its state speaks of %s: %w", s.span, span, shard.ErrCorrupt)
	}
	build := func(w *engine.SSTWriter) error { return s.versions((&restoring{w: w}).version, stop) }
	if err := e.ReplaceIf(span, may, build, records...); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	return nil
}

// restoring puts versions into the store, and what follows from them: which keys are
// attached to a lease.
type restoring struct {
	w    *engine.SSTWriter
	last []byte // key of the last version
	any  bool   // there was one
}

func (r *restoring) version(key []byte, rev shard.Revision, rec []byte) error {
	if !r.any || !bytes.Equal(key, r.last) { // the key's latest: they come newest first
		h, _, err := decodeRecord(rec, rev)
		if err != nil {
			return err
		}
		if !h.Deleted && h.Lease != 0 {
			r.w.Attach(h.Lease, key)
		}
		r.any, r.last = true, append(r.last[:0], key...)
	}
	return r.w.Put(key, rev, rec)
}

// snapshotStream is a stream whose head was read.
type snapshotStream struct {
	f     frameReader
	span  shard.Span
	state []byte
}

func openSnapshot(r io.Reader) (*snapshotStream, error) {
	s := &snapshotStream{f: frameReader{r: bufio.NewReaderSize(r, 64<<10)}}
	kind, p, err := s.f.next()
	if err != nil {
		return nil, err
	}
	if kind != frameHead || len(p) < len(snapshotMagic)+1 || string(p[:len(snapshotMagic)]) != snapshotMagic {
		return nil, fmt.Errorf("not a snapshot stream: %w", shard.ErrCorrupt)
	}
	if v := p[len(snapshotMagic)]; v != snapshotFormat {
		return nil, fmt.Errorf("snapshot format %d, this build knows %d: the sender is another release", v, snapshotFormat)
	}
	d := fields{uvarints{rest: p[len(snapshotMagic)+1:]}}
	s.span.Start = bytes.Clone(d.bytes())
	s.span.End = bytes.Clone(d.bytes())
	s.state = bytes.Clone(d.bytes())
	if d.bad || len(d.rest) != 0 || s.span.Empty() {
		return nil, fmt.Errorf("malformed snapshot head: %w", shard.ErrCorrupt)
	}
	return s, nil
}

// versions gives each version, of which slices are valid during the call, and reads to the
// tail. Only nil means that it was all of them; what was given before an error is worth
// nothing (V5).
func (s *snapshotStream) versions(each func(key []byte, rev shard.Revision, record []byte) error, stop <-chan struct{}) error {
	var count uint64
	var key []byte
	for {
		if stopped(stop) {
			return ErrSnapshotStopped
		}
		sums := s.f.sums
		kind, p, err := s.f.next()
		if err != nil {
			return err
		}
		if kind == frameTail {
			if len(p) != 12 || binary.LittleEndian.Uint64(p) != count || binary.LittleEndian.Uint32(p[8:]) != sums {
				return fmt.Errorf("snapshot tail does not match its data: %w", shard.ErrCorrupt)
			}
			return nil
		}
		if kind != frameData {
			return fmt.Errorf("snapshot frame of unknown type %d: %w", kind, shard.ErrCorrupt)
		}
		key = key[:0]
		for d := (fields{uvarints{rest: p}}); len(d.rest) > 0; count++ {
			shared := d.next()
			rest := d.bytes()
			rev := shard.Revision(d.next())
			rec := d.bytes()
			if d.bad || shared > uint64(len(key)) || !s.span.Contains(append(key[:shared], rest...)) {
				return fmt.Errorf("malformed version in snapshot: %w", shard.ErrCorrupt)
			}
			key = append(key[:shared], rest...)
			if _, _, err := decodeRecord(rec, rev); err != nil {
				return fmt.Errorf("key %q at revision %s in snapshot: %w", key, rev, err)
			}
			if err := each(key, rev, rec); err != nil {
				return err
			}
		}
	}
}

// fields takes length-prefixed byte strings off the front, too.
type fields struct{ uvarints }

func (d *fields) bytes() []byte {
	n := d.next()
	if n > uint64(len(d.rest)) {
		d.bad, d.rest = true, nil
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}
