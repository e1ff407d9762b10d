package node_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
)

// as is a client of one node that has logged in.
func as(t *testing.T, n *testcluster.Node, user, password string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{n.ClientAddr()}, Username: user, Password: password, DialTimeout: 10 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// Once authentication is enabled through one node, every node admits users to what they may do, and nobody else. What is
// taken away is gone on all of them when the answer comes, and nobody is asked any more once it is disabled.
func TestUsersOfACluster(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	first, ctx := c.Node(1), t.Context()
	anybody := c.Client(t, first)
	put(t, anybody, "open/a", "1")
	put(t, anybody, "shut/a", "2")
	do := func(_ any, err error) {
		t.Helper()
		require.NoError(t, err)
	}
	_, err := anybody.AuthEnable(ctx)
	require.Equal(t, rpctypes.ErrRootUserNotExist, err)
	do(anybody.UserAddWithOptions(ctx, "root", "", &clientv3.UserAddOptions{NoPassword: true}))
	do(anybody.UserGrantRole(ctx, "root", "root"))
	_, err = anybody.AuthEnable(ctx)
	require.ErrorContains(t, err, "nobody could disable authentication again")
	do(anybody.UserDelete(ctx, "root"))
	do(anybody.UserAdd(ctx, "root", "r"))
	do(anybody.UserGrantRole(ctx, "root", "root"))
	do(anybody.UserAdd(ctx, "ann", "a"))
	do(anybody.RoleAdd(ctx, "opener"))
	do(anybody.RoleGrantPermission(ctx, "opener", "open/", clientv3.GetPrefixRangeEnd("open/"), clientv3.PermissionType(clientv3.PermReadWrite)))
	do(anybody.UserGrantRole(ctx, "ann", "opener"))
	do(anybody.AuthEnable(ctx))
	_, err = anybody.AuthEnable(ctx)
	require.Equal(t, rpctypes.ErrUserEmpty, err)

	nodes := []*testcluster.Node{c.Node(1), c.Node(2), c.Node(3)}
	var anns []*clientv3.Client
	for _, n := range nodes {
		_, err := c.Client(t, n).Get(ctx, "open/a")
		require.Equal(t, rpctypes.ErrUserEmpty, err)
		ann := as(t, n, "ann", "a")
		anns = append(anns, ann)
		do(ann.Put(ctx, "open/b", "3"))
		do(ann.Get(ctx, "open/", clientv3.WithPrefix()))
		for _, refused := range []func() error{
			func() error { _, err := ann.Put(ctx, "shut/b", ""); return err },
			func() error { _, err := ann.Get(ctx, "shut/a"); return err },
			func() error { _, err := ann.Get(ctx, "", clientv3.WithPrefix()); return err },
			func() error { _, err := ann.Delete(ctx, "", clientv3.WithFromKey()); return err },
			func() error { _, err := ann.Compact(ctx, 1); return err },
			func() error { _, err := ann.UserList(ctx); return err },
			func() error { _, err := ann.AuthDisable(ctx); return err },
		} {
			require.Equal(t, rpctypes.ErrPermissionDenied, refused())
		}
	}
	root := as(t, c.Node(2), "root", "r")
	do(root.AuthEnable(ctx)) // again
	for user, code := range map[string]int{"": http.StatusUnauthorized, "ann": http.StatusUnauthorized, "root": http.StatusOK} {
		require.Equal(t, code, pageFor(t, c.Node(3), user, user[:min(1, len(user))]), user)
	}
	require.Equal(t, http.StatusUnauthorized, pageFor(t, c.Node(3), "root", "wrong"))

	do(root.UserRevokeRole(ctx, "ann", "opener"))
	for _, ann := range anns {
		_, err := ann.Get(ctx, "open/a")
		require.Equal(t, rpctypes.ErrPermissionDenied, err)
	}
	// A node that is down keeps authentication from being enabled, not from being disabled.
	c.Node(3).Stop()
	do(root.AuthDisable(ctx))
	do(c.Client(t, first).Get(ctx, "shut/a"))
	_, err = c.Client(t, first).AuthEnable(ctx)
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.ErrorContains(t, err, `"n3"`)
	require.ErrorContains(t, err, "the attempt was undone")
	for _, n := range nodes[:2] {
		testcluster.Until(t, n.Name+" to serve by any copy of the table again", func() bool { return !n.Inside().Guarded() })
	}
}

// pageFor is the status with which a node answers a browser.
func pageFor(t *testing.T, n *testcluster.Node, user, password string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.ClientAddr()+"/dashboard/state", nil)
	require.NoError(t, err)
	req.Close = true
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// With --client-cert-auth, whoever sends no token is the user whom the certificate names, except by way of the gateway.
func TestUsersOfCertificates(t *testing.T) {
	t.Parallel()
	certs := testcluster.NewCertificates(t)
	c := testcluster.Start(t, testcluster.Options{Nodes: 1, Edit: func(name string, cfg *node.Config) {
		cfg.ClientTLS, cfg.PeerTLS = certs.IssueNode(t, name, time.Hour)
		cfg.ClientCertAuth = true
	}})
	ctx := t.Context()
	do := func(_ any, err error) {
		t.Helper()
		require.NoError(t, err)
	}
	cfg := testcluster.Config(t, certs.Issue(t, "ann", time.Hour))
	ann := secureClient(t, cfg, c.Node(1))
	do(ann.UserAdd(ctx, "root", "r"))
	do(ann.UserGrantRole(ctx, "root", "root"))
	do(ann.UserAddWithOptions(ctx, "ann", "", &clientv3.UserAddOptions{NoPassword: true}))
	do(ann.RoleAdd(ctx, "opener"))
	do(ann.RoleGrantPermission(ctx, "opener", "open", "", clientv3.PermissionType(clientv3.PermReadWrite)))
	do(ann.UserGrantRole(ctx, "ann", "opener"))
	do(ann.AuthEnable(ctx))
	do(ann.Put(ctx, "open", "1"))
	_, err := ann.Get(ctx, "shut")
	require.Equal(t, rpctypes.ErrPermissionDenied, err)
	_, err = secureClient(t, testcluster.Config(t, certs.Issue(t, "bob", time.Hour)), c.Node(1)).Get(ctx, "open")
	require.Equal(t, rpctypes.ErrPermissionDenied, err, "nobody knows bob")

	address := c.Node(1).Inside().ClientAddr()
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}
	defer web.CloseIdleConnections()
	resp, err := web.Post("https://"+address+"/v3/kv/range", "application/json", strings.NewReader(`{"key":"b3Blbg=="}`))
	require.NoError(t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Contains(t, string(text), "user name is empty")
}
