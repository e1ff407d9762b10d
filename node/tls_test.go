package node_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/internal/certfiles"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/node/raftnet"
)

// certificates is an authority with its files in a directory.
type certificates struct {
	*certfiles.Authority
	dir string
}

func newCertificates(t *testing.T) *certificates {
	t.Helper()
	c := &certificates{dir: t.TempDir()}
	a, pair, err := certfiles.NewAuthority("test", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	require.NoError(t, err)
	c.Authority = a
	require.NoError(t, pair.Write(c.path("ca.crt"), c.path("ca.key")))
	return c
}

func (c *certificates) path(name string) string { return filepath.Join(c.dir, name) }

// issue writes a certificate, over the one that it replaces. One without hosts is a client's.
func (c *certificates) issue(t *testing.T, name string, valid time.Duration, hosts ...string) certfiles.Files {
	t.Helper()
	pair, err := c.Issue(certfiles.Subject{Name: name, Hosts: hosts, Begins: time.Now().Add(-time.Hour), Ends: time.Now().Add(valid)})
	require.NoError(t, err)
	files := certfiles.Files{Cert: c.path(name + ".crt"), Key: c.path(name + ".key"), CA: c.path("ca.crt")}
	require.NoError(t, os.WriteFile(files.Cert, pair.Cert, 0o600))
	require.NoError(t, os.WriteFile(files.Key, pair.Key, 0o600))
	return files
}

// config is what a client with the files uses.
func config(t *testing.T, files certfiles.Files) *tls.Config {
	t.Helper()
	s, err := certfiles.Open(files, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return s.Client("")
}

// secureCluster has TLS on all ports, with certificates required.
func secureCluster(t *testing.T, certs *certificates) *testcluster.Cluster {
	t.Helper()
	return testcluster.Start(t, testcluster.Options{Splits: "g,n,t", Edit: func(name string, cfg *node.Config) {
		cfg.ClientTLS = certs.issue(t, name, time.Hour, "127.0.0.1")
		cfg.PeerTLS = certs.issue(t, name+"-peer", time.Hour, "127.0.0.1")
		cfg.AdminAddr = testcluster.Lease(t)
	}})
}

func secureClient(t *testing.T, cfg *tls.Config, nodes ...*testcluster.Node) *clientv3.Client {
	t.Helper()
	var endpoints []string
	for _, n := range nodes {
		endpoints = append(endpoints, n.Inside().ClientAddr())
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: cfg, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// Everything goes over TLS: requests to every shard through every node, Raft, watches, leases, HTTP, the native client,
// also after a restart.
func TestTLS(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	c := secureCluster(t, certs)
	cfg := config(t, certs.issue(t, "client", time.Hour))
	all := secureClient(t, cfg, c.Nodes()...)
	events := all.Watch(t.Context(), "", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	require.True(t, (<-events).Created)
	for i, key := range []string{"apple", "grape", "orange", "tomato"} {
		put(t, all, key, fmt.Sprint(i))
		for _, n := range c.Nodes() {
			requireValue(t, secureClient(t, cfg, n), key, fmt.Sprint(i))
		}
		require.Equal(t, key, string((<-events).Events[0].Kv.Key))
	}
	lease, err := all.Grant(t.Context(), 60)
	require.NoError(t, err)
	_, err = all.KeepAliveOnce(t.Context(), lease.ID)
	require.NoError(t, err)
	members, err := all.MemberList(t.Context())
	require.NoError(t, err)
	for _, m := range members.Members {
		require.Contains(t, m.PeerURLs[0], "https://")
		require.Contains(t, m.ClientURLs[0], "https://")
	}
	require.NoError(t, all.Sync(t.Context()))
	put(t, all, "apple", "again")

	native, err := client.New(client.Config{Endpoints: []string{c.Node(2).Inside().ClientAddr()}, TLS: cfg})
	require.NoError(t, err)
	defer native.Close()
	got, err := native.Get(t.Context(), "apple")
	require.NoError(t, err)
	require.Equal(t, "again", string(got.KVs[0].Value))

	c.Node(3).Stop()
	c.Node(3).Start(t)
	requireValue(t, secureClient(t, cfg, c.Node(3)), "apple", "again")

	web := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}
	defer web.CloseIdleConnections()
	resp, err := web.Get("https://" + c.Node(1).Inside().ClientAddr() + "/health")
	require.NoError(t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Contains(t, string(text), `"health":"true"`)
}

// Who has no certificate from the authority gets nothing from any port, and is told why where its protocol can say it.
func TestStrangersAreKeptOut(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	admin := testcluster.Lease(t)
	c := testcluster.Start(t, testcluster.Options{Nodes: 1, Edit: func(name string, cfg *node.Config) {
		cfg.ClientTLS = certs.issue(t, name, time.Hour, "127.0.0.1")
		cfg.PeerTLS = certs.issue(t, name+"-peer", time.Hour, "127.0.0.1")
		cfg.AdminAddr = admin
	}})
	n := c.Node(1).Inside()
	own := config(t, certs.issue(t, "client", time.Hour))
	put(t, secureClient(t, own, c.Node(1)), "k", "v")
	other := newCertificates(t)
	stranger := other.issue(t, "client", time.Hour)
	stranger.CA = certs.path("ca.crt")
	for name, cfg := range map[string]*tls.Config{
		"without TLS":                     nil,
		"without a certificate":           config(t, certfiles.Files{CA: certs.path("ca.crt")}),
		"with a stranger's certificate":   config(t, stranger),
		"with a certificate that is over": config(t, certs.issue(t, "late", -time.Minute)),
		"without trust in the node's":     config(t, other.issue(t, "client", time.Hour)),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := secureClient(t, cfg, c.Node(1)).Get(ctx, "k")
			require.Error(t, err)
			native, err := client.New(client.Config{Endpoints: []string{n.ClientAddr()}, TLS: cfg})
			require.NoError(t, err)
			defer native.Close()
			_, err = native.Get(ctx, "k")
			require.Error(t, err)
			if cfg == nil {
				return
			}
			for _, addr := range []string{n.ClientAddr(), admin} {
				web := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}
				_, err := web.Get("https://" + addr + "/metrics")
				require.ErrorContains(t, err, "certificate")
				web.CloseIdleConnections()
			}
		})
	}
	resp, err := http.Get("http://" + n.ClientAddr() + "/health")
	require.NoError(t, err)
	text, _ := io.ReadAll(resp.Body)
	require.NoError(t, resp.Body.Close())
	require.Contains(t, string(text), "use https")

	// The peer port takes neither Raft without TLS nor a client's certificate.
	peers := config(t, certs.issue(t, "client", time.Hour))
	peers.ServerName = "127.0.0.1"
	raw, err := net.Dial("tcp", c.Node(1).PeerAddr())
	require.NoError(t, err)
	requireHungUp(t, raw)
	raw, err = net.Dial("tcp", c.Node(1).PeerAddr())
	require.NoError(t, err)
	requireHungUp(t, tls.Client(raw, peers))
}

// requireHungUp begins to speak Raft, and gets no answer.
func requireHungUp(t *testing.T, c net.Conn) {
	t.Helper()
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	_, _ = io.WriteString(c, raftnet.Preface) // may fail, because the other side has hung up
	said, err := io.ReadAll(c)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NotContains(t, string(said), raftnet.Preface)
}

// A certificate is renewed while the node runs. Until it is, the error says what is the matter.
func TestCertificatesAreRenewed(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	c := secureCluster(t, certs)
	cfg := config(t, certs.issue(t, "client", time.Hour))
	connected := secureClient(t, cfg, c.Node(1))
	put(t, connected, "k", "v")
	get := func() error {
		native, err := client.New(client.Config{Endpoints: []string{c.Node(1).Inside().ClientAddr()}, TLS: cfg})
		require.NoError(t, err)
		defer native.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err = native.Get(ctx, "k")
		return err
	}
	for _, n := range c.Nodes() {
		certs.issue(t, n.Name, -time.Minute, "127.0.0.1")
		certs.issue(t, n.Name+"-peer", -time.Minute, "127.0.0.1")
	}
	require.ErrorContains(t, get(), "certificate has expired")
	requireValue(t, connected, "k", "v") // connections go on, between nodes too
	for _, n := range c.Nodes() {
		certs.issue(t, n.Name, time.Hour, "127.0.0.1")
		certs.issue(t, n.Name+"-peer", time.Hour, "127.0.0.1")
	}
	require.NoError(t, get())
	c.Node(2).Stop()
	c.Node(2).Start(t)
	requireValue(t, secureClient(t, cfg, c.Node(2)), "k", "v")
}
