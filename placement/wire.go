package placement

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// mapFormat is the version of placementpb.Map that this package writes and reads.
const mapFormat = 1

// Proto converts the map to its wire form.
func (m *Map) Proto() *placementpb.Map { return m.protoSince(0) }

// protoSince converts the map, with only those nodes, shards and settings that changed after the version.
func (m *Map) protoSince(since uint64) *placementpb.Map {
	p := &placementpb.Map{
		Format: mapFormat, Version: m.version, ClusterId: m.clusterID, Compacted: int64(m.compacted),
		NextNodeId: uint64(m.nextNode), NextShardId: uint64(m.nextShard),
	}
	for _, n := range m.nodes {
		if n.Version > since {
			p.Nodes = append(p.Nodes, n.Proto())
		}
	}
	for _, e := range m.byID {
		if e.version > since {
			p.Shards = append(p.Shards, e.proto())
		}
	}
	slices.SortFunc(p.Shards, func(a, b *placementpb.Shard) int {
		return bytes.Compare(a.Descriptor_.Start, b.Descriptor_.Start)
	})
	if m.meta.version > since {
		p.Meta = m.meta.proto()
	}
	if m.settingsVersion > since {
		p.Settings = &placementpb.Settings{Version: m.settingsVersion}
		for _, s := range m.settings {
			p.Settings.Settings = append(p.Settings.Settings, &placementpb.Setting{Name: s.Name, Value: s.Value})
		}
	}
	if m.operatorsVersion > since {
		p.Operators = &placementpb.Operators{Version: m.operatorsVersion}
		for _, o := range m.operators {
			p.Operators.Operators = append(p.Operators.Operators, o.Proto())
		}
	}
	if m.auth != nil && m.auth.Version > since {
		p.Auth = m.auth.proto()
	}
	return p
}

func (e entry) proto() *placementpb.Shard {
	return &placementpb.Shard{Descriptor_: e.desc.Proto(), Version: e.version}
}

// MapOf converts a whole map from its wire form and audits it. It copies everything.
func MapOf(p *placementpb.Map) (*Map, error) { return (&Map{}).overlaid(p) }

// overlaid returns m with everything in p on top, audited.
func (m *Map) overlaid(p *placementpb.Map) (*Map, error) {
	if p.GetFormat() != mapFormat {
		return nil, fmt.Errorf("placement map has format %d, this version reads format %d; use the version that wrote it, or a later one", p.GetFormat(), mapFormat)
	}
	next := *m
	next.version, next.clusterID, next.compacted = p.Version, p.ClusterId, shard.Revision(p.Compacted)
	next.nextNode, next.nextShard = shard.NodeID(p.NextNodeId), shard.ID(p.NextShardId)

	nodes := make([]*Node, len(p.Nodes))
	for i, pn := range p.Nodes {
		n, err := nodeOf(pn)
		if err != nil {
			return nil, err
		}
		nodes[i] = n
	}
	slices.SortFunc(nodes, func(a, b *Node) int { return cmp.Compare(a.ID, b.ID) })
	if len(nodes) > 0 {
		next.putNodes(nodes)
	}

	entries := make([]entry, len(p.Shards))
	for i, ps := range p.Shards {
		e, err := entryOf(ps)
		if err != nil {
			return nil, err
		}
		entries[i] = e
	}
	if len(entries) > 0 {
		next.putShards(entries)
	}
	if p.Meta != nil {
		e, err := entryOf(p.Meta)
		if err != nil {
			return nil, fmt.Errorf("meta group: %w", err)
		}
		next.meta = e
	}
	if p.Settings != nil {
		next.settings, next.settingsVersion = settingsOf(p.Settings), p.Settings.Version
	}
	if p.Operators != nil {
		next.operators, next.operatorsVersion = nil, p.Operators.Version
		for _, po := range p.Operators.Operators {
			o, err := operatorOf(po)
			if err != nil {
				return nil, fmt.Errorf("operator: %w", err)
			}
			next.operators = append(next.operators, o)
		}
	}
	if p.Auth != nil {
		next.auth = authOf(p.Auth)
	}
	if err := next.Audit(); err != nil {
		return nil, fmt.Errorf("audit placement map at version %d: %w", next.version, err)
	}
	return &next, nil
}

func entryOf(p *placementpb.Shard) (entry, error) {
	d, err := descriptorOf(p.GetDescriptor_())
	if err != nil {
		return entry{}, err
	}
	return entry{desc: d, version: p.Version}, nil
}

// descriptorOf refuses what shard.DescriptorOf could not represent.
func descriptorOf(p *shardpb.Descriptor) (*shard.Descriptor, error) {
	if p == nil {
		return nil, errors.New("the descriptor is missing")
	}
	if p.Slot >= slotCount {
		return nil, fmt.Errorf("shard %d has slot %d; slots are below %d", p.ShardId, p.Slot, slotCount)
	}
	if slices.Contains(p.Replicas, nil) {
		return nil, fmt.Errorf("shard %d has a replica without content", p.ShardId)
	}
	return shard.DescriptorOf(p), nil
}

func settingsOf(p *placementpb.Settings) []Setting {
	settings := make([]Setting, len(p.Settings))
	for i, s := range p.Settings {
		settings[i] = Setting{Name: s.GetName(), Value: s.GetValue()}
	}
	return settings
}
