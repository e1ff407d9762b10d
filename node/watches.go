package node

import (
	"context"
	"fmt"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/etcdapi"
	"github.com/flotilla-kv/flotilla/router/watchmerge"
	"github.com/flotilla-kv/flotilla/shard"
)

// Subscribe implements router.Subscriber.
func (s *sender) Subscribe(ctx context.Context, node shard.NodeID, sub router.Subscription, ready func()) (router.Feed, error) {
	if node == s.self {
		return s.exec.Subscribe(sub, ready)
	}
	n := s.table.Map().Node(node)
	if n == nil {
		return nil, fmt.Errorf("node %s is not in the placement table: %w", node, shard.ErrUnavailable)
	}
	feed, err := s.peers.at(n.PeerAddr).Subscribe(ctx, sub, ready)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	return feed, nil
}

// watches implements the watches of etcd's API.
type watches struct {
	*router.Router
	merger *watchmerge.Merger
}

var _ etcdapi.Watches = watches{}

// Watch implements etcdapi.Watches.
func (w watches) Watch(span shard.Span, from shard.Revision, prevKV bool, ready func()) etcdapi.Watch {
	return w.merger.Open(watchmerge.Options{Span: span, From: from, PrevKV: prevKV}, ready)
}
