package placement

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Audit checks the invariants that a single map can show, P1 to P9 and P11. It reads everything. Restore and Map.Apply call
// it before they trust a map from outside.
func (m *Map) Audit() error {
	if m.clusterID == 0 {
		if m.version != 0 || len(m.nodes) != 0 || len(m.byStart) != 0 {
			return errors.New("P6: the map has content but no cluster ID")
		}
		return nil
	}
	if m.version == 0 || max(m.settingsVersion, m.operatorsVersion) > m.version {
		return fmt.Errorf("P6: the map is at version %d, its settings at %d, its operators at %d", m.version, m.settingsVersion, m.operatorsVersion)
	}
	if m.compacted < 0 {
		return fmt.Errorf("P7: the compacted revision is %d", m.compacted)
	}
	for _, check := range []func() error{m.auditSpans, m.auditShards, m.auditSlots, m.auditNodes, m.auditSettings, m.auditOperators, m.auditAuth} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// auditSpans checks P1: each shard begins where the previous one ends.
func (m *Map) auditSpans() error {
	if len(m.byStart) == 0 {
		return errors.New("P1: there are no shards")
	}
	last := len(m.byStart) - 1
	if first := m.byStart[0]; len(first.Span.Start) != 0 {
		return fmt.Errorf("P1: no shard owns the keys before %s of shard %s", first.Span, first.ID)
	}
	for i, d := range m.byStart[:last] {
		next := m.byStart[i+1]
		if len(d.Span.End) == 0 || d.Span.Empty() || !bytes.Equal(d.Span.End, next.Span.Start) {
			return fmt.Errorf("P1: shard %s owns %s and the next, shard %s, owns %s", d.ID, d.Span, next.ID, next.Span)
		}
	}
	if d := m.byStart[last]; len(d.Span.End) != 0 {
		return fmt.Errorf("P1: no shard owns the keys after %s of shard %s", d.Span, d.ID)
	}
	return nil
}

// auditShards checks P2 and P6 for shards, and P4.
func (m *Map) auditShards() error {
	if len(m.byID) != len(m.byStart) {
		return fmt.Errorf("P2: %d shards by key, %d by ID", len(m.byStart), len(m.byID))
	}
	previous := shard.FirstDataID - 1
	for _, e := range m.byID {
		if e.desc.ID <= previous || e.desc.ID >= m.nextShard {
			return fmt.Errorf("P2: shard ID %s follows %s, the next free one is %s", e.desc.ID, previous, m.nextShard)
		}
		if e.version == 0 || e.version > m.version {
			return fmt.Errorf("P6: shard %s is from version %d of the map, which is at %d", e.desc.ID, e.version, m.version)
		}
		previous = e.desc.ID
	}
	if d := m.meta.desc; d != nil && (d.ID != shard.MetaID || m.meta.version == 0 || m.meta.version > m.version) {
		return fmt.Errorf("P6: the meta group is shard %s from version %d of the map, which is at %d", d.ID, m.meta.version, m.version)
	}
	for d := range m.groups() {
		if d.Epoch == 0 || d.Generation == 0 {
			return fmt.Errorf("P6: shard %s has epoch %d and generation %d", d.ID, d.Epoch, d.Generation)
		}
		if err := m.checkReplicas(d); err != nil {
			return fmt.Errorf("P4: shard %s: %w", d.ID, err)
		}
	}
	return nil
}

// auditSlots checks P3.
func (m *Map) auditSlots() error {
	var use slotUse
	for i, d := range m.byStart {
		use[d.Slot]++
		if i > 0 && m.byStart[i-1].Slot == d.Slot {
			return fmt.Errorf("P3: shards %s and %s are neighbours and both have slot %d", m.byStart[i-1].ID, d.ID, d.Slot)
		}
		if use[d.Slot] > 1 && len(m.byStart) <= slotCount {
			return fmt.Errorf("P3: shard %s has slot %d, which another has, though there are only %d shards", d.ID, d.Slot, len(m.byStart))
		}
	}
	return nil
}

// auditNodes checks P2 and P6 for nodes, and P5.
func (m *Map) auditNodes() error {
	var previous shard.NodeID
	names, addrs, incarnations := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, n := range m.nodes {
		if n.ID <= previous || n.ID >= m.nextNode {
			return fmt.Errorf("P2: node ID %s follows %s, the next free one is %s", n.ID, previous, m.nextNode)
		}
		previous = n.ID
		if n.Version == 0 || n.Version > m.version {
			return fmt.Errorf("P6: node %q is from version %d of the map, which is at %d", n.Name, n.Version, m.version)
		}
		if err := n.check(); err != nil {
			return fmt.Errorf("node %q (ID %s): %w", n.Name, n.ID, err)
		}
		if n.State < Active || n.State > Removed {
			return fmt.Errorf("node %q (ID %s) is in %s, which this version does not know", n.Name, n.ID, n.State)
		}
		if incarnations[string(n.Incarnation)] {
			return fmt.Errorf("P5: node %q has the incarnation of another node", n.Name)
		}
		incarnations[string(n.Incarnation)] = true
		if n.State == Removed {
			continue
		}
		if names[n.Name] {
			return fmt.Errorf("P5: two nodes are named %q", n.Name)
		}
		if addrs[n.PeerAddr] {
			return fmt.Errorf("P5: node %q has peer address %s of another node", n.Name, n.PeerAddr)
		}
		names[n.Name], addrs[n.PeerAddr] = true, true
	}
	return nil
}

func (m *Map) auditSettings() error {
	for i, s := range m.settings {
		if i > 0 && m.settings[i-1].Name >= s.Name {
			return fmt.Errorf("P8: setting %q follows %q", s.Name, m.settings[i-1].Name)
		}
		if s.Value == "" {
			return fmt.Errorf("P8: setting %q is empty", s.Name)
		}
		if err := checkSetting(s.Name, s.Value); err != nil {
			return fmt.Errorf("setting %q: %w", s.Name, err)
		}
	}
	if m.ReplicationFactor() == 0 {
		return fmt.Errorf("setting %q is missing", SettingReplicationFactor)
	}
	return nil
}

// auditOperators checks P9.
func (m *Map) auditOperators() error {
	held := make(map[shard.ID]bool)
	for i, o := range m.operators {
		if i > 0 && m.operators[i-1].Shard >= o.Shard {
			return fmt.Errorf("P9: the operator of shard %s follows that of shard %s", o.Shard, m.operators[i-1].Shard)
		}
		if o.ID == 0 || o.ID > m.operatorsVersion {
			return fmt.Errorf("P9: operator %d of shard %s is from the future of version %d", o.ID, o.Shard, m.operatorsVersion)
		}
		if o.Phase < placementpb.Phase_PREPARED || o.Phase > lastPhase(o.Kind) {
			return fmt.Errorf("P9: operator %d, a %s, is in phase %s", o.ID, o.Kind, o.Phase)
		}
		if held[o.Shard] || held[o.With] {
			return fmt.Errorf("P9: shard %s or %s is held by operator %d and by another", o.Shard, o.With, o.ID)
		}
		held[o.Shard] = true
		if o.With != 0 {
			held[o.With] = true
		}
		if err := m.auditOperator(o); err != nil {
			return fmt.Errorf("P9: operator %d: %w", o.ID, err)
		}
	}
	return nil
}

// auditOperator checks that the map still contains what the operator began with.
func (m *Map) auditOperator(o *Operator) error {
	d := m.Shard(o.Shard)
	if d == nil {
		return fmt.Errorf("there is no shard %s", o.Shard)
	}
	switch o.Kind {
	case placementpb.OperatorKind_MOVE:
	case placementpb.OperatorKind_SPLIT:
		c := o.Child
		if c == nil || c.ID >= m.nextShard || m.Shard(c.ID) != nil {
			return fmt.Errorf("the child of shard %s is not one that is to come", d.ID)
		}
		if !bytes.Equal(c.Span.Start, o.Key) || !bytes.Equal(c.Span.End, d.Span.End) || !d.Span.Contains(o.Key) ||
			bytes.Equal(o.Key, d.Span.Start) || c.Epoch != d.Epoch+1 || c.Slot == d.Slot {
			return fmt.Errorf("child %s, which owns %s at epoch %d with slot %d, does not come from shard %s, which owns %s at epoch %d with slot %d",
				c.ID, c.Span, c.Epoch, c.Slot, d.ID, d.Span, d.Epoch, d.Slot)
		}
		if err := m.checkReplicas(c); err != nil {
			return fmt.Errorf("child %s: %w", c.ID, err)
		}
	case placementpb.OperatorKind_MERGE:
		right := m.RightOf(d)
		if isRight := right != nil && right.ID == o.With; isRight != (o.Phase < placementpb.Phase_COMMITTED) {
			return fmt.Errorf("it is %s and shard %s is (or is not) the right neighbour of shard %s", o.Phase, o.With, d.ID)
		}
		if gone := o.Right != nil; gone != (o.Phase >= placementpb.Phase_COMMITTED) ||
			gone && (o.Right.ID != o.With || !bytes.Equal(o.Right.Span.End, d.Span.End) || o.Right.Epoch >= d.Epoch) {
			return fmt.Errorf("it is %s and does not say rightly what shard %s was", o.Phase, o.With)
		}
	default:
		return fmt.Errorf("this version knows no %s", o.Kind)
	}
	return nil
}
