package peer

import (
	"context"
	"strconv"
	"strings"
)

// EtcdVersion is the release that benchmarks/etcd/go.mod pins.
const EtcdVersion = "3.7.3"

// Etcd is a real etcd.
type Etcd struct {
	// Path is the server's binary; "" builds the pinned release.
	Path string
}

// Name implements Kind.
func (Etcd) Name() string { return "etcd" }

// Binary implements Kind. The release is built from its own module, so that etcd's
// server is no dependency of Flotilla.
func (e Etcd) Binary(ctx context.Context) (string, error) {
	if e.Path != "" {
		return given(e.Path)
	}
	return build(ctx, "benchmarks/etcd", "go.etcd.io/etcd/server/v3", "etcd-"+EtcdVersion)
}

// etcdQuotaBytes is etcd's suggested maximum. Its default of 2 GiB would stop a
// long run of writes, and nothing measured here depends on it.
const etcdQuotaBytes = 8 << 30

func (e Etcd) command(p plan, i int) []string {
	members := make([]string, p.Nodes)
	for j := range members {
		members[j] = nodeName(j) + "=http://" + p.peer[j]
	}
	return []string{
		"--name", nodeName(i),
		"--data-dir", p.dirs[i],
		"--listen-client-urls", "http://" + p.client[i],
		"--advertise-client-urls", "http://" + p.client[i],
		"--listen-peer-urls", "http://" + p.peer[i],
		"--initial-advertise-peer-urls", "http://" + p.peer[i],
		"--initial-cluster", strings.Join(members, ","),
		"--initial-cluster-state", "new",
		"--initial-cluster-token", "bench-" + p.peer[0],
		"--quota-backend-bytes", strconv.Itoa(etcdQuotaBytes),
		"--log-level", "warn",
	}
}
