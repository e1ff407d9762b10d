package node

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/node/dashboard"
)

// keys is what the dashboard reads keys by: the node's own API, which judges what it is asked for like a client's requests.
func (n *Node) keys(api grpc.ClientConnInterface) *dashboard.Keys {
	if !n.cfg.DashboardKeys {
		return nil
	}
	return &dashboard.Keys{
		KV: pb.NewKVClient(api), Watch: pb.NewWatchClient(api), Lease: pb.NewLeaseClient(api),
		As:        func(r *http.Request) (context.Context, error) { return n.access.guard.As(r.Context()) },
		KnownHost: n.cfg.isOwnHost, Map: n.table.Map,
	}
}

// isOwnHost reports whether a host name is one that the node was given as its own.
func (c Config) isOwnHost(host string) bool {
	if own, _, err := net.SplitHostPort(c.ClientAddr); err == nil && strings.EqualFold(host, own) {
		return true
	}
	for _, text := range c.AdvertiseClientURLs {
		if u, err := url.Parse(text); err == nil && strings.EqualFold(host, u.Hostname()) {
			return true
		}
	}
	return slices.ContainsFunc(c.HostWhitelist, func(own string) bool { return strings.EqualFold(host, own) })
}
