package node

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/flotilla-kv/flotilla/shard"
)

// space is the free disk space: this node's own, and whether that of any node is so low that the
// store must not grow.
type space struct {
	node *Node
	// full are the nodes whose disks were nearly full at the last judgement. While there are any, they are told as alarms
	// and writes that grow the store are refused: both by this, so that nobody is refused without an alarm.
	full atomic.Pointer[[]shard.NodeID]

	mu struct {
		sync.Mutex
		low   bool
		usage vfs.DiskUsage // at the last look
	}
}

// look compares the free space with the limit. There must be some margin before puts are allowed
// again, so that the alarm does not flap.
func (s *space) look() {
	cfg, log := &s.node.cfg, s.node.log
	usage, err := cfg.FS.GetDiskUsage(cfg.DataDir)
	if err != nil {
		log.Warn("cannot tell how full the disk is", "dir", cfg.DataDir, "error", err)
		return
	}
	free := int64(usage.AvailBytes)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.usage = usage
	switch limit := cfg.MinFreeDisk; {
	case free < limit && !s.mu.low:
		s.mu.low = true
		log.Error("disk is nearly full; puts are refused until there is room", "free_bytes", free, "limit_bytes", limit)
	case free > limit+limit/4 && s.mu.low:
		s.mu.low = false
		log.Info("disk has room again", "free_bytes", free)
	}
}

// own returns the size of this node's disk and its free space; 0 while unknown.
func (s *space) own() (total, free int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.mu.usage.TotalBytes), int64(s.mu.usage.AvailBytes)
}

// low reports whether this node's disk is nearly full.
func (s *space) low() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.low
}

// judge refuses writes that grow the store while any node is out of space: every replica has to
// store every write.
func (s *space) judge() {
	low := s.node.health.lowDisks()
	if s.low() {
		low = append(low, s.node.self.NodeID)
	}
	slices.Sort(low)
	s.full.Store(&low)
}

// fullNodes returns the nodes because of which the store must not grow, ascending.
func (s *space) fullNodes() []shard.NodeID {
	if full := s.full.Load(); full != nil {
		return *full
	}
	return nil
}

// refusal returns why the store must not grow, or nil.
func (s *space) refusal() error {
	if full := s.fullNodes(); len(full) > 0 {
		return fmt.Errorf("disk of node %s is nearly full: %w", full[0], shard.ErrNoSpace)
	}
	return nil
}

// receive refuses to let a part of a shard that another node sends take so many bytes of the disk, if they would leave less than half
// of what --min-free-disk keeps. Without room for its Raft log the node would end, with all its replicas.
func (s *space) receive(bytes int64) error {
	usage, err := s.node.cfg.FS.GetDiskUsage(s.node.cfg.DataDir)
	if err != nil {
		return fmt.Errorf("see how full the disk is: %w", err)
	}
	if free, keep := int64(usage.AvailBytes), s.node.cfg.MinFreeDisk/2; free-bytes < keep {
		return fmt.Errorf("the disk of node %s has %d bytes free, and %d more would leave less than %d, half of --min-free-disk: %w", s.node.cfg.Name, free, bytes, keep, shard.ErrNoSpace)
	}
	return nil
}

// lend refuses to let something temporary take so many bytes of the disk if puts would be refused because of it.
func (s *space) lend(bytes int64) error {
	usage, err := s.node.cfg.FS.GetDiskUsage(s.node.cfg.DataDir)
	if err != nil {
		return fmt.Errorf("see how full the disk is: %w", err)
	}
	limit := s.node.cfg.MinFreeDisk
	if free := int64(usage.AvailBytes); free-bytes <= limit+limit/4 {
		return fmt.Errorf("the disk of node %s has %d bytes free, of which --min-free-disk keeps %d: %w", s.node.cfg.Name, free, limit+limit/4, shard.ErrNoSpace)
	}
	return nil
}
