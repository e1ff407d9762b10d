package node_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/flotilla-kv/flotilla/internal/certfiles"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/node/raftnet"
)

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

// Everything goes over TLS: requests to every shard through every node, Raft, watches, leases, HTTP, also after a
// restart.
func TestTLS(t *testing.T) {
	t.Parallel()
	certs := testcluster.NewCertificates(t)
	c := testcluster.Start(t, testcluster.Options{Splits: "g,n,t", Edit: certs.Secure(t)})
	cfg := testcluster.Config(t, certs.Issue(t, "client", time.Hour))
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

	c.Node(3).Stop()
	c.Node(3).Start(t)
	requireValue(t, secureClient(t, cfg, c.Node(3)), "apple", "again")

	web := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}} // like curl and browsers
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
	certs, other := testcluster.NewCertificates(t), testcluster.NewCertificates(t)
	admin := testcluster.Lease(t)
	c := testcluster.Start(t, testcluster.Options{Nodes: 1, Edit: func(name string, cfg *node.Config) {
		cfg.ClientTLS, cfg.PeerTLS = certs.IssueNode(t, name, time.Hour)
		cfg.AdminAddr = admin
	}})
	n := c.Node(1).Inside()
	own := testcluster.Config(t, certs.Issue(t, "client", time.Hour))
	put(t, secureClient(t, own, c.Node(1)), "k", "v")
	stranger := other.Issue(t, "client", time.Hour)
	stranger.CA = certs.CA()
	for name, cfg := range map[string]*tls.Config{
		"without TLS":                     nil,
		"without a certificate":           testcluster.Config(t, certfiles.Files{CA: certs.CA()}),
		"with a stranger's certificate":   testcluster.Config(t, stranger),
		"with a certificate that is over": testcluster.Config(t, certs.Issue(t, "late", -time.Minute)),
		"without trust in the node's":     testcluster.Config(t, other.Issue(t, "client", time.Hour)),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := secureClient(t, cfg, c.Node(1)).Get(ctx, "k")
			require.Error(t, err)
			if cfg == nil {
				return
			}
			for _, addr := range []string{n.ClientAddr(), admin} {
				web := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}
				_, err := web.Get("https://" + addr + "/metrics")
				require.Error(t, err)
				web.CloseIdleConnections()
			}
		})
	}
	resp, err := http.Get("http://" + n.ClientAddr() + "/health")
	require.NoError(t, err)
	text, _ := io.ReadAll(resp.Body) // it may end with a reset
	require.NoError(t, resp.Body.Close())
	require.Contains(t, string(text), "use https")

	// The peer port takes neither Raft without TLS nor a client's certificate.
	raw, err := net.Dial("tcp", c.Node(1).PeerAddr())
	require.NoError(t, err)
	requireHungUp(t, raw)
	raw, err = net.Dial("tcp", c.Node(1).PeerAddr())
	require.NoError(t, err)
	own.ServerName = "127.0.0.1"
	requireHungUp(t, tls.Client(raw, own))
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

// Certificates that have expired keep nobody out who is connected, and are replaced while the nodes run.
func TestCertificatesAreRenewed(t *testing.T) {
	t.Parallel()
	certs := testcluster.NewCertificates(t)
	c := testcluster.Start(t, testcluster.Options{Edit: certs.Secure(t)})
	cfg := testcluster.Config(t, certs.Issue(t, "client", time.Hour))
	connected := secureClient(t, cfg, c.Node(1))
	put(t, connected, "k", "v")
	head := func() error {
		conn, err := tls.Dial("tcp", c.Node(1).Inside().ClientAddr(), cfg)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	for _, n := range c.Nodes() {
		certs.IssueNode(t, n.Name, -time.Minute)
	}
	require.ErrorContains(t, head(), "certificate has expired")
	put(t, connected, "k", "again") // connections between nodes go on too
	for _, n := range c.Nodes() {
		certs.IssueNode(t, n.Name, time.Hour)
	}
	require.NoError(t, head())
	c.Node(2).Stop()
	c.Node(2).Start(t)
	requireValue(t, secureClient(t, cfg, c.Node(2)), "k", "again")
}
