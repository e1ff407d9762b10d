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
	// full says why writes that grow the store are refused; nil if they are not. It is the result of the last
	// judgement, kept so that a put only loads a pointer.
	full atomic.Pointer[string]

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

// lowNodes returns the nodes whose disks are nearly full, this one included.
func (s *space) lowNodes() []shard.NodeID {
	low := s.node.health.lowDisks()
	if s.low() {
		low = append(low, s.node.self.NodeID)
	}
	slices.Sort(low)
	return low
}

// judge refuses writes that grow the store while any node is out of space: every replica has to
// store every write.
func (s *space) judge() {
	low := s.lowNodes()
	if len(low) == 0 {
		s.full.Store(nil)
		return
	}
	why := fmt.Sprintf("disk of node %s is nearly full", low[0])
	s.full.Store(&why)
}

// refusal returns why the store must not grow, or nil.
func (s *space) refusal() error {
	if why := s.full.Load(); why != nil {
		return fmt.Errorf("%s: %w", *why, shard.ErrNoSpace)
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
