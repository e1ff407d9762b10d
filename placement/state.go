package placement

import (
	"fmt"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// commandFormat is the version of Command that this package writes and reads.
const commandFormat = 1

// State is the meta group's state machine. One goroutine applies; any goroutine may use the Maps it
// returns.
type State struct {
	m        *Map
	answered answers
}

// NewState returns the state of a cluster that was not initialised.
func NewState() *State { return &State{m: &Map{}} }

// Map returns the current map, at no cost: every change makes a new map that shares what did not change.
func (s *State) Map() *Map { return s.m }

// Audit checks the invariants of the current map.
func (s *State) Audit() error { return s.m.Audit() }

// Snapshot returns the whole state. Equal states give equal bytes (P8).
func (s *State) Snapshot() []byte {
	p := s.m.Proto()
	p.Answers = s.answered.proto()
	data, err := p.MarshalVT()
	if err != nil {
		// Marshalling into a buffer of the right size cannot fail.
		panic(fmt.Sprintf("placement: encode map at version %d: %v", s.m.version, err))
	}
	return data
}

// Restore replaces the state with a snapshot. After an error the state is unchanged.
func (s *State) Restore(snapshot []byte) error {
	p := &placementpb.Map{}
	if err := p.UnmarshalVT(snapshot); err != nil {
		return fmt.Errorf("restore placement map of %d bytes: %w", len(snapshot), err)
	}
	m, err := MapOf(p)
	if err != nil {
		return fmt.Errorf("restore placement map: %w", err)
	}
	answered, err := answersOf(p.Answers)
	if err != nil {
		return fmt.Errorf("restore placement map: %w", err)
	}
	s.m, s.answered = m, answered
	return nil
}

// EncodeCommand returns the log entry of a command. It sets the command's format.
func EncodeCommand(c *placementpb.Command) ([]byte, error) {
	c.Format = commandFormat
	data, err := c.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("encode placement command: %w", err)
	}
	return data, nil
}

// ApplyEntry applies one entry of the meta group's log. It is total: malformed bytes are refused
// like an invalid command, because an error from a state machine would stop every member at the
// same entry.
func (s *State) ApplyEntry(data []byte) *placementpb.Result {
	c := &placementpb.Command{}
	var r *placementpb.Result
	if err := c.UnmarshalVT(data); err != nil {
		r = invalid("decode placement command of %d bytes: %v", len(data), err)
	} else if c.Format != commandFormat {
		r = invalid("placement command has format %d, this version reads format %d; upgrade every node before using newer features", c.Format, commandFormat)
	} else {
		return s.Apply(c)
	}
	r.Version = s.m.version
	return r
}

// Apply applies one command. It keeps no reference to it. The result must not be modified.
func (s *State) Apply(c *placementpb.Command) *placementpb.Result {
	if r := s.answered.to(c, s.m.version); r != nil {
		return r
	}
	next, r := s.m.apply(c)
	r.Version = next.version
	if next != s.m {
		s.answered.note(c, r)
	}
	s.m = next
	return r
}

// apply returns the map after the command, which is m itself if nothing changed (P6).
func (m *Map) apply(c *placementpb.Command) (*Map, *placementpb.Result) {
	if c.GetInitCluster() != nil {
		return m.initCluster(c.GetInitCluster())
	}
	if m.clusterID == 0 {
		return m, refuse(placementpb.Code_FAILED_PRECONDITION, "the cluster is not initialised yet; start its first nodes and try again")
	}
	switch {
	case c.GetAddNode() != nil:
		return m.addNode(c.GetAddNode())
	case c.GetUpdateNode() != nil:
		return m.updateNode(c.GetUpdateNode())
	case c.GetRemoveNode() != nil:
		return m.removeNode(c.GetRemoveNode())
	case c.GetRecordCompaction() != nil:
		return m.recordCompaction(c.GetRecordCompaction())
	case c.GetSetSetting() != nil:
		return m.setSetting(c.GetSetSetting())
	case c.GetUpdateShard() != nil:
		return m.updateShard(c.GetUpdateShard())
	case c.GetBeginOperator() != nil:
		return m.beginOperator(c.GetBeginOperator())
	case c.GetAdvanceOperator() != nil:
		return m.advanceOperator(c.GetAdvanceOperator())
	case c.GetFinishOperator() != nil:
		return m.finishOperator(c.GetFinishOperator())
	case c.GetCancelOperator() != nil:
		return m.cancelOperator(c.GetCancelOperator())
	case c.GetChangeAuth() != nil:
		return m.changeAuth(c.GetChangeAuth())
	}
	return m, invalid("placement command has no body this version knows; upgrade every node before using newer features")
}

// recordCompaction answers a retry as etcd does: a revision that was compacted already is refused.
func (m *Map) recordCompaction(c *placementpb.RecordCompaction) (*Map, *placementpb.Result) {
	rev := shard.Revision(c.Revision)
	if rev <= 0 {
		return m, invalid("compact at revision %d: revisions are positive", rev)
	}
	if rev <= m.compacted { // P7
		r := refuse(placementpb.Code_COMPACTED, "compact at revision %d: already compacted at %d", rev, m.compacted)
		r.Compacted = int64(m.compacted)
		return m, r
	}
	next := m.edit()
	next.compacted = rev
	r := ok()
	r.Compacted = c.Revision
	return next, r
}
