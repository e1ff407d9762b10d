package placement

import (
	"errors"
	"fmt"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
)

// ErrUpdateGap says that an update starts after the map to which it was applied. The follower asks
// for a whole map (UpdateSince(0)).
var ErrUpdateGap = errors.New("placement update does not follow on this map")

// UpdateSince returns what changed after the version, or nil when nothing did. Version 0 gives the
// whole map. The answer covers all changes in between, so a follower that skipped versions needs no
// other. It shares memory with the map: send it, do not modify it.
func (m *Map) UpdateSince(version uint64) *placementpb.Update {
	if version >= m.version {
		return nil
	}
	return &placementpb.Update{Since: version, Map: m.protoSince(version)}
}

// Apply returns the map after an update: a map equal to the one from which the update was made, or
// m itself when m is not older. It keeps no reference to the update. A refused update leaves the
// follower with m, which remains valid for its version.
//
// Shards that are gone are not listed: a shard loses its place only to others that own its keys now
// (P1), and those changed, so they are in the update.
func (m *Map) Apply(u *placementpb.Update) (*Map, error) {
	p := u.GetMap()
	if m.clusterID != 0 && p.GetClusterId() != m.clusterID {
		return nil, fmt.Errorf("apply placement update: it is from cluster %x, this is a map of cluster %x", p.GetClusterId(), m.clusterID)
	}
	if p.GetVersion() <= m.version {
		return m, nil
	}
	if u.Since > m.version {
		return nil, fmt.Errorf("apply placement update since version %d to a map at version %d: %w", u.Since, m.version, ErrUpdateGap)
	}
	base := m
	if u.Since == 0 {
		base = &Map{} // the update is a whole map: what it does not list does not exist
	}
	next, err := base.overlaid(p)
	if err != nil {
		return nil, fmt.Errorf("apply placement update since version %d to a map at version %d: %w", u.Since, m.version, err)
	}
	return next, nil
}
