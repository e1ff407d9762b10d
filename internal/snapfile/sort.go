package snapfile

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

const (
	// runBytes is how much is sorted in memory at a time.
	runBytes = 16 << 20
	// recordOverhead is what a record takes in memory in addition to its bytes.
	recordOverhead = 32
	// mergeBytes is shared by the read buffers of all runs; mergeBufferMin is the smallest of them. With 64 GiB of
	// records there are 4,096 runs, which take as much as one run in memory.
	mergeBytes     = 16 << 20
	mergeBufferMin = 4 << 10
	mergeBufferMax = 256 << 10
)

// room reports whether so many more bytes may be written to the disk.
type room func(bytes int64) error

// sorter sorts records by their keys, in bounded memory (K1). Keys are distinct.
type sorter struct {
	dir  string
	room room
	max  int // bytes in memory

	arena   []byte
	records []record
	file    *os.File // holds the runs that did not fit, one behind the other; nil: none
	runs    []int64  // where each ends
}

// record is a record in the arena.
type record struct {
	at, key, body int
}

func newSorter(dir string, max int, room room) *sorter {
	return &sorter{dir: dir, max: max, room: room}
}

// add takes a copy of a record.
func (s *sorter) add(key, body []byte) error {
	size := len(key) + len(body)
	if len(s.records) > 0 && len(s.arena)+size+(len(s.records)+1)*recordOverhead > s.max {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.records = append(s.records, record{len(s.arena), len(key), len(body)})
	s.arena = append(append(s.arena, key...), body...)
	return nil
}

func (s *sorter) keyOf(r record) []byte  { return s.arena[r.at : r.at+r.key] }
func (s *sorter) bodyOf(r record) []byte { return s.arena[r.at+r.key : r.at+r.key+r.body] }

func (s *sorter) sort() {
	slices.SortFunc(s.records, func(a, b record) int { return bytes.Compare(s.keyOf(a), s.keyOf(b)) })
}

// spill writes what is in memory to the file, as a run.
func (s *sorter) spill() error {
	s.sort()
	if s.file == nil {
		f, err := os.OpenFile(filepath.Join(s.dir, "sort"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("create a file to sort in: %w", err)
		}
		s.file = f
	}
	if err := s.room(int64(len(s.arena) + len(s.records)*2*binary.MaxVarintLen32)); err != nil {
		return err
	}
	var written int64
	if len(s.runs) > 0 {
		written = s.runs[len(s.runs)-1]
	}
	w := bufio.NewWriterSize(s.file, mergeBufferMax)
	var head []byte
	for _, r := range s.records {
		head = binary.AppendUvarint(binary.AppendUvarint(head[:0], uint64(r.key)), uint64(r.body))
		written += int64(len(head) + r.key + r.body)
		_, _ = w.Write(head) // Flush returns the first error
		_, _ = w.Write(s.arena[r.at : r.at+r.key+r.body])
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write sorted records: %w", err)
	}
	s.runs = append(s.runs, written)
	s.arena, s.records = s.arena[:0], s.records[:0]
	return nil
}

// sorted returns all records in order. Nothing may be added any more. It may be called again, for
// another pass.
func (s *sorter) sorted() (*merge, error) {
	s.sort()
	m := &merge{}
	if len(s.records) > 0 {
		m.sources = append(m.sources, &memoryRun{sorter: s})
	}
	buffer := mergeBufferMax
	if len(s.runs) > 0 {
		buffer = max(mergeBufferMin, min(mergeBufferMax, mergeBytes/len(s.runs)))
	}
	var from int64
	for _, end := range s.runs {
		m.sources = append(m.sources, &fileRun{r: bufio.NewReaderSize(io.NewSectionReader(s.file, from, end-from), buffer)})
		from = end
	}
	for _, src := range m.sources {
		if err := src.next(); err != nil {
			return nil, err
		}
	}
	heap.Init(m)
	return m, nil
}

func (s *sorter) close() error {
	s.arena, s.records = nil, nil
	if s.file == nil {
		return nil
	}
	return errors.Join(s.file.Close(), os.Remove(s.file.Name()))
}

// run is a source of sorted records.
type run interface {
	// next goes to the next record; io.EOF at the end.
	next() error
	// now returns the record, valid until next.
	now() (key, body []byte)
}

type memoryRun struct {
	*sorter
	read int
}

func (m *memoryRun) next() error {
	if m.read == len(m.records) {
		return io.EOF
	}
	m.read++
	return nil
}

func (m *memoryRun) now() (key, body []byte) {
	r := m.records[m.read-1]
	return m.keyOf(r), m.bodyOf(r)
}

type fileRun struct {
	r    *bufio.Reader
	data []byte
	key  int
}

func (f *fileRun) next() error {
	key, err := binary.ReadUvarint(f.r)
	if err != nil {
		return err // io.EOF between two records
	}
	body, err := binary.ReadUvarint(f.r)
	if err != nil {
		return fmt.Errorf("read sorted records: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	f.key = int(key)
	f.data = slices.Grow(f.data[:0], int(key+body))[:key+body]
	if _, err := io.ReadFull(f.r, f.data); err != nil {
		return fmt.Errorf("read sorted records: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	return nil
}

func (f *fileRun) now() (key, body []byte) { return f.data[:f.key], f.data[f.key:] }

// merge yields the records of all runs in order. It is a heap of runs by their present records.
type merge struct {
	sources []run
	begun   bool
}

// next returns the next record, valid until the next call; io.EOF at the end.
func (m *merge) next() (key, body []byte, err error) {
	if m.begun && len(m.sources) > 0 {
		switch err := m.sources[0].next(); {
		case err == nil:
			heap.Fix(m, 0)
		case errors.Is(err, io.ErrUnexpectedEOF) || !errors.Is(err, io.EOF):
			return nil, nil, err
		default:
			heap.Pop(m)
		}
	}
	m.begun = true
	if len(m.sources) == 0 {
		return nil, nil, io.EOF
	}
	key, body = m.sources[0].now()
	return key, body, nil
}

// Len implements heap.Interface, as do the following methods.
func (m *merge) Len() int { return len(m.sources) }

func (m *merge) Less(i, j int) bool {
	a, _ := m.sources[i].now()
	b, _ := m.sources[j].now()
	return bytes.Compare(a, b) < 0
}

func (m *merge) Swap(i, j int) { m.sources[i], m.sources[j] = m.sources[j], m.sources[i] }
func (m *merge) Push(x any)    { m.sources = append(m.sources, x.(run)) }
func (m *merge) Pop() any {
	last := m.sources[len(m.sources)-1]
	m.sources = m.sources[:len(m.sources)-1]
	return last
}
