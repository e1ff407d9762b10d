package raftlog

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/raftio"
)

// Log is the Raft log of a node. It is safe for concurrent use by different replicas;
// dragonboat never writes for one replica from two goroutines.
type Log struct {
	folder  folder
	sizes   sizes
	logger  *slog.Logger
	metrics *metrics
	synced  func(took time.Duration)

	// syncing is held during a sync, and taken before mu. A goroutine that has waited for it often
	// finds its data durable already.
	syncing sync.Mutex

	mu       sync.Mutex
	failed   error      // R7
	segments []*segment // the oldest first, without gaps; the last one is written to
	first    uint32     // the oldest segment that must be there
	pending  []byte     // records that are not written yet
	written  int64      // where in the last one they will be
	spare    vfs.File   // for the next one; nil for none
	replicas map[raftio.NodeInfo]*replica

	tidy    chan struct{} // holds one when there may be something to tidy up
	closing chan struct{}
	tidying sync.WaitGroup
}

var _ raftio.ILogDB = (*Log)(nil)

// Open opens the log in a folder, creating it if necessary.
func Open(path string, o Options) (*Log, error) {
	l, err := open(path, o)
	if err != nil {
		return nil, err
	}
	l.tidying.Go(l.keepTidy)
	l.wakeTidy()
	return l, nil
}

// open is Open without the goroutine that deletes old segments.
func open(path string, o Options) (*Log, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Synced == nil {
		o.Synced = func(time.Duration) {}
	}
	if o.sizes == (sizes{}) {
		o.sizes = defaultSizes()
	}
	l := &Log{
		folder: folder{o.FS, path, o.sizes.ahead}, sizes: o.sizes, logger: o.Logger, synced: o.Synced,
		first: 1, replicas: make(map[raftio.NodeInfo]*replica), tidy: make(chan struct{}, 1), closing: make(chan struct{}),
	}
	if err := l.load(); err != nil {
		l.closeFiles()
		return nil, fmt.Errorf("open the Raft log in %s: %w", path, err)
	}
	l.metrics = newMetrics(o.Registerer, l.size)
	return l, nil
}

// Name implements raftio.ILogDB.
func (l *Log) Name() string { return name }

// BinaryFormat implements raftio.ILogDB.
func (l *Log) BinaryFormat() uint32 { return binaryFormat }

// Close implements raftio.ILogDB.
func (l *Log) Close() error {
	close(l.closing)
	l.tidying.Wait()
	err := l.Sync()
	if err = errors.Join(err, l.closeFiles()); err != nil {
		return fmt.Errorf("close the Raft log: %w", err)
	}
	return nil
}

func (l *Log) closeFiles() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, s := range l.segments {
		errs = append(errs, s.file.Close())
	}
	if l.spare != nil {
		errs = append(errs, l.spare.Close())
	}
	return errors.Join(errs...)
}

// size is the size of the log in bytes, without the spare file.
func (l *Log) size() (bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		bytes += s.size
	}
	return bytes
}

// newest is the segment being written.
func (l *Log) newest() *segment { return l.segments[len(l.segments)-1] }

// replica returns the log's state of a replica, creating it if necessary.
func (l *Log) replica(id raftio.NodeInfo) *replica {
	r := l.replicas[id]
	if r == nil {
		r = &replica{}
		l.replicas[id] = r
	}
	return r
}

// fail records that the log cannot be relied on any more (R7).
func (l *Log) fail(err error) error {
	if l.failed == nil {
		l.failed = err
		l.logger.Error("raft log: it has failed and takes nothing any more, so this node stops; what it has acknowledged is on the disk", "err", err)
	}
	return l.failed
}

// append has fill append items to a record, and returns where the record ends in the newest
// segment; 0 when there are none. It is ordered with all others, and durable once sync has
// returned. mu is held. A failure of fill is a failure of the log, because what is in memory has
// changed by then.
func (l *Log) append(fill func() error) (end int64, err error) {
	if l.failed != nil {
		return 0, l.failed
	}
	if l.newest().size >= l.sizes.segment {
		if err := l.roll(); err != nil {
			return 0, l.fail(err)
		}
	}
	s, before := l.newest(), len(l.pending)
	l.pending = beginRecord(l.pending)
	if err := fill(); err != nil {
		return 0, l.fail(err)
	}
	record := l.pending[before:]
	if len(record) == recordHeadLength {
		l.pending = l.pending[:before]
		return 0, nil
	}
	endRecord(record, s.number, s.durable)
	s.extent = s.with(len(record), record)
	l.metrics.bytes.Add(float64(len(record)))
	if len(l.pending) > pendingBytes {
		return s.size, l.write()
	}
	return s.size, nil
}

// write passes the pending data to the operating system. mu is held.
func (l *Log) write() error {
	if l.failed != nil {
		return l.failed
	}
	if len(l.pending) == 0 {
		return nil
	}
	s := l.newest()
	if _, err := s.file.WriteAt(l.pending, l.written); err != nil {
		return l.fail(fmt.Errorf("write segment %d of the Raft log: %w", s.number, err))
	}
	l.written = s.size
	l.pending = l.pending[:0]
	if cap(l.pending) > keptBytes {
		l.pending = nil
	}
	return nil
}

// roll continues in the next segment, once all of this one is durable. mu is held.
func (l *Log) roll() error {
	s := l.newest()
	if err := l.write(); err != nil {
		return err
	}
	if err := s.file.SyncData(); err != nil {
		return fmt.Errorf("sync segment %d of the Raft log: %w", s.number, err)
	}
	return l.succeed(s)
}

// succeed begins the segment after the newest. mu is held.
func (l *Log) succeed(s *segment) error {
	if err := l.begin(s.number+1, s.extent); err != nil {
		return err
	}
	return l.folder.follow(s)
}

// begin continues in a new segment. mu is held.
func (l *Log) begin(number uint32, before extent) error {
	spare := l.spare
	l.spare = nil
	s, err := l.folder.begin(number, before, spare)
	if err != nil {
		return err
	}
	l.segments = append(l.segments, s)
	l.written = s.size
	l.wakeTidy()
	return nil
}

// Sync makes durable what was written before the call.
func (l *Log) Sync() error {
	l.mu.Lock()
	s := l.newest()
	end := s.size
	l.mu.Unlock()
	return l.sync(s, end)
}

// sync makes a segment durable up to an offset, and everything before it.
func (l *Log) sync(s *segment, end int64) error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if s != l.newest() || end <= s.durable { // who went on to the next one has synced this one
		return l.failed
	}
	if err := l.write(); err != nil {
		return err
	}
	upTo := s.size
	s.readers++ // it stays open
	l.mu.Unlock()
	err := s.file.SyncData()
	l.mu.Lock()
	err = errors.Join(err, l.release(s))
	if err != nil {
		return l.fail(fmt.Errorf("sync segment %d of the Raft log: %w", s.number, err))
	}
	s.durable = upTo
	return l.failed
}

// release ends a use of a segment. mu is held.
func (l *Log) release(s *segment) error {
	s.readers--
	if s.gone && s.readers == 0 {
		return s.file.Close()
	}
	return nil
}
