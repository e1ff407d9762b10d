package node

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// others returns the addresses of the other nodes, those with a replica of the meta group separately, as far as this
// node knows.
func (m *meta) others() (members, rest []string) {
	for _, p := range m.node.knownPeers() {
		switch {
		case p.NodeID == m.node.self.NodeID:
		case p.Meta:
			members = append(members, p.PeerAddr)
		default:
			rest = append(rest, p.PeerAddr)
		}
	}
	return members, rest
}

// follow keeps the table up to date from any peer that answers, until ctx ends. A node with a
// replica follows too, because the group may have dismissed it, or not know it yet. The leader has
// nobody to follow.
func (m *meta) follow(ctx context.Context) {
	for ctx.Err() == nil {
		members, rest := m.others()
		for _, addr := range append(members, rest...) {
			if m.leads() {
				break
			}
			if err := m.followOne(ctx, addr); ctx.Err() == nil {
				m.node.log.Debug("following the placement table ended", "peer", addr, "error", err)
			}
		}
		_ = pause(ctx, bootstrapPause)
	}
}

// followOne receives updates from one peer until there are no more; the error says why.
func (m *meta) followOne(ctx context.Context, addr string) error {
	known := m.node.table.Map()
	stream, err := routerpb.NewPeerClient(m.node.peers.at(addr).Conn()).FollowMap(ctx, &routerpb.FollowMapRequest{Version: known.Version()})
	if err != nil {
		return err
	}
	for {
		msg, err := stream.Recv()
		if err != nil {
			return err
		}
		if known, err = m.take(known, msg); err != nil {
			return err
		}
	}
}

// take publishes the changes that a peer has sent relative to the known map.
func (m *meta) take(known *placement.Map, msg *routerpb.MapUpdate) (*placement.Map, error) {
	if len(msg.Update) == 0 {
		return known, nil
	}
	var u placementpb.Update
	if err := u.UnmarshalVT(msg.Update); err != nil {
		return nil, fmt.Errorf("decode an update of the placement table: %w", err)
	}
	next, err := known.Apply(&u)
	if err != nil {
		return nil, err
	}
	m.node.table.publish(next)
	return next, nil
}

// FollowMap implements routerpb.PeerServer. A node without a replica sends its copy, so that the
// follower learns who has one, and ends the stream: two nodes that follow each other would learn
// nothing.
func (s *peerServer) FollowMap(req *routerpb.FollowMapRequest, stream grpc.ServerStreamingServer[routerpb.MapUpdate]) error {
	version := req.Version
	for {
		m, changed := s.node.table.next()
		if m.Version() > version {
			msg, err := updateSince(m, version)
			if err != nil {
				return err
			}
			if err := stream.Send(msg); err != nil {
				return err
			}
			version = m.Version()
		}
		if !s.node.meta.runs() {
			return status.Error(codes.FailedPrecondition, "this node has no replica of the meta group")
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-s.node.ctx.Done():
			return status.Error(codes.Unavailable, "node is stopping")
		}
	}
}

// ReadMeta implements routerpb.PeerServer.
func (s *peerServer) ReadMeta(ctx context.Context, req *routerpb.ReadMetaRequest) (*routerpb.MapUpdate, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	m, err := s.node.meta.readOwn(ctx)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return updateSince(m, req.Version)
}

func updateSince(m *placement.Map, version uint64) (*routerpb.MapUpdate, error) {
	u := m.UpdateSince(version)
	if u == nil {
		return &routerpb.MapUpdate{}, nil
	}
	data, err := u.MarshalVT()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &routerpb.MapUpdate{Update: data}, nil
}

// knownPeers returns the nodes in the table. Before the table is known, it returns those of the node's last run, or
// else the founders.
func (n *Node) knownPeers() []Peer {
	if m := n.table.Map(); m.ClusterID() != 0 {
		return peersOf(m, n.self)
	}
	if len(n.remembered) > 0 {
		return n.remembered
	}
	return n.self.Founding.peers()
}

// peersOf lists the nodes of a table. If the table does not record the meta group, the founders hold it.
func peersOf(m *placement.Map, self *Membership) []Peer {
	group := m.Shard(shard.MetaID)
	var peers []Peer
	for _, n := range m.Nodes() {
		p := Peer{NodeID: n.ID, Name: n.Name, PeerAddr: n.PeerAddr}
		if group != nil {
			_, p.Meta = group.ReplicaOn(n.ID)
		} else {
			p.Meta = slices.ContainsFunc(self.Founding.metaMembers(), func(f Founder) bool { return f.NodeID == n.ID })
		}
		peers = append(peers, p)
	}
	return peers
}
