package raftlog

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/lni/dragonboat/v4/raftio"
)

func (l *Log) wakeTidy() {
	select {
	case l.tidy <- struct{}{}:
	default:
	}
}

// keepTidy deletes unused segments, until the log is closed.
func (l *Log) keepTidy() {
	for {
		select {
		case <-l.closing:
			return
		case <-l.tidy:
		}
		if err := l.tidyUp(); err != nil {
			l.stuck(err)
			return
		}
	}
}

// stuck reports that no segment is deleted any more, unless the log has failed as a whole, which
// was reported.
func (l *Log) stuck(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return
	}
	l.metrics.stuck.Set(1)
	l.logger.Error("raft log: old files are not removed any more, so it grows, and this node will not start again; replace it while it runs, and doubt its disk", "err", err)
}

// tidyUp deletes the oldest segments while nothing in them is in use, and while the log is much
// larger than what is in use, moves records in use out of them.
func (l *Log) tidyUp() error {
	for {
		select {
		case <-l.closing:
			return nil
		default:
		}
		s, live, crowded := l.oldest()
		switch {
		case s == nil || live && !crowded:
			return nil
		case live:
			if err := l.empty(s); err != nil {
				return err
			}
		default:
			if err := l.drop(s); err != nil {
				return err
			}
		}
	}
}

// oldest returns the oldest segment, nil if that is the newest too, and whether anything in it is
// in use. crowded says that the log is larger than it should be.
func (l *Log) oldest() (s *segment, live, crowded bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s = l.segments[0]; s == l.newest() {
		return nil, false, false
	}
	var size, counts int64
	for _, s := range l.segments {
		size += max(s.size, l.sizes.least)
		counts += s.live
	}
	return s, s.live > 0, size > 3*counts+l.sizes.slack
}

// drop deletes a segment in which nothing is in use. Before that, what replaces it (R6), and which
// segment is the oldest then (R5), is made durable.
func (l *Log) drop(s *segment) error {
	if err := l.noteOldest(s.number + 1); err != nil {
		return err
	}
	if err := l.Sync(); err != nil {
		return err
	}
	l.mu.Lock()
	keep := l.spare == nil && s.readers == 0 && s.size <= 2*l.sizes.segment
	l.mu.Unlock()
	// Nobody starts to read from it, and only this goroutine makes a file the spare one.
	if err := l.folder.drop(s, keep); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.fail(err) // whether it is there, nobody knows
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments = l.segments[1:]
	switch {
	case keep:
		l.spare = s.file
	case s.readers == 0:
		return s.file.Close()
	default:
		s.gone = true
	}
	return nil
}

func (l *Log) noteOldest(number uint32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.append(func() error {
		begin := len(l.pending)
		l.pending = beginItem(l.pending, kindOldest, raftio.NodeInfo{})
		l.pending = binary.BigEndian.AppendUint64(l.pending, uint64(number))
		endItem(l.pending[begin:])
		return nil
	})
	return err
}

// empty moves what is in use in a segment to the end of the log.
func (l *Log) empty(s *segment) error {
	l.mu.Lock()
	ids := make([]raftio.NodeInfo, 0, len(l.replicas))
	for id := range l.replicas {
		ids = append(ids, id)
	}
	l.mu.Unlock()
	for _, id := range ids {
		if err := l.moveRecords(id, s); err != nil {
			return err
		}
		for more := true; more; {
			var err error
			if more, err = l.moveEntries(id, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// moveRecords appends those of a replica's records again that are in a segment.
func (l *Log) moveRecords(id raftio.NodeInfo, s *segment) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.replicas[id]
	if r == nil { // it is gone
		return nil
	}
	_, err := l.append(func() error {
		for i, rec := range r.records {
			if rec.segment != s.number {
				continue
			}
			l.metrics.moved.Add(float64(len(rec.data)))
			if err := l.addRecord(id, kindBootstrap+kind(i), rec.data); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// moveEntries appends copies of some of a replica's first entries in a segment. more is false when
// there are none.
func (l *Log) moveEntries(id raftio.NodeInfo, s *segment) (more bool, err error) {
	index, used := l.useSome(id, s)
	if len(used) == 0 {
		return false, nil
	}
	frames := make([][]byte, len(used))
	for i, u := range used {
		if frames[i], _, err = s.readEntry(l.folder, u.place, nil); err != nil {
			break
		}
	}
	if err := errors.Join(err, l.releaseAll(used)); err != nil {
		return false, err
	}
	return true, l.appendMoved(id, index, used, frames)
}

// appendMoved appends copies of those entries that are still where they were read. Meanwhile some
// may have been removed, at the beginning or at the end.
func (l *Log) appendMoved(id raftio.NodeInfo, index uint64, read []usedPlace, frames [][]byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	from, to := 0, len(frames)
	for from < to && !l.isAt(id, index+uint64(from), read[from].place) {
		from++
	}
	for from < to && !l.isAt(id, index+uint64(to)-1, read[to-1].place) {
		to--
	}
	if from == to {
		return nil
	}
	_, err := l.append(func() error {
		l.addMoved(id, index+uint64(from), frames[from:to])
		return nil
	})
	return err
}

// useSome returns the places of the first of a replica's entries in a segment.
func (l *Log) useSome(id raftio.NodeInfo, s *segment) (index uint64, used []usedPlace) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.replicas[id]
	if r == nil {
		return 0, nil
	}
	from := slices.IndexFunc(r.places, func(p place) bool { return p.segment == s.number })
	if from < 0 {
		return 0, nil
	}
	to, bytes := from, uint32(0)
	for to < len(r.places) && r.places[to].segment == s.number && bytes < moveBytes {
		bytes += r.places[to].length
		to++
	}
	return r.first + uint64(from), l.usePlaces(r.places[from:to])
}

// isAt reports whether an entry is at a place.
func (l *Log) isAt(id raftio.NodeInfo, index uint64, p place) bool {
	r := l.replicas[id]
	return r != nil && index >= r.first && index < r.end() && r.places[index-r.first] == p
}
