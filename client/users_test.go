package client_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/client/etcd"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

func user(name, password string) func(*client.Config) {
	return func(cfg *client.Config) { cfg.Username, cfg.Password = name, password }
}

// users makes root and ann, who may read and write what begins with open/, and enables authentication.
func users(t *testing.T, by *clientv3.Client) {
	t.Helper()
	ctx := t.Context()
	do := func(_ any, err error) {
		t.Helper()
		require.NoError(t, err)
	}
	do(by.UserAdd(ctx, "root", "r"))
	do(by.UserGrantRole(ctx, "root", "root"))
	do(by.UserAdd(ctx, "ann", "a"))
	do(by.RoleAdd(ctx, "opener"))
	do(by.RoleGrantPermission(ctx, "opener", "open/", clientv3.GetPrefixRangeEnd("open/"), clientv3.PermissionType(clientv3.PermReadWrite)))
	do(by.UserGrantRole(ctx, "ann", "opener"))
	do(by.AuthEnable(ctx))
}

// A client acts for its user, and says precisely what that may not do, or who it is not. Its tokens are renewed; what its user may
// not read any more ends its watches.
func TestUsers(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	ctx := t.Context()
	do := func(_ any, err error) {
		t.Helper()
		require.NoError(t, err)
	}
	anybody := c.Client(t, c.Node(1))
	do(anybody.Put(ctx, "open/a", "1"))
	do(anybody.Put(ctx, "shut/a", "2"))
	early := connect(t, c, user("ann", "a"))
	do(early.Get(ctx, "shut/a"))
	users(t, anybody)
	asRoot := func() *clientv3.Client {
		root, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), Username: "root", Password: "r", DialTimeout: 20 * time.Second, Logger: zap.NewNop()})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, root.Close()) })
		return root
	}
	root := asRoot()

	nobody := connect(t, c)
	_, err := nobody.Get(ctx, "open/a")
	require.ErrorIs(t, err, rpctypes.ErrGRPCUserEmpty)
	_, err = connect(t, c, user("ann", "wrong")).Get(ctx, "open/a")
	require.ErrorIs(t, err, rpctypes.ErrGRPCAuthFailed)
	do(early.Get(ctx, "open/a")) // it had no token, and has one now
	ann := connect(t, c, user("ann", "a"))
	do(ann.Put(ctx, "open/c", []byte("4")))
	do(ann.Get(ctx, "open/", client.WithPrefix()))
	lease, err := ann.Grant(ctx, time.Minute)
	require.NoError(t, err)
	do(ann.Put(ctx, "open/d", nil, client.WithLease(lease)))
	do(ann.Renew(ctx, lease))
	foreign, err := root.Grant(ctx, 60)
	require.NoError(t, err)
	do(root.Put(ctx, "shut/c", "", clientv3.WithLease(foreign.ID)))
	_, err = ann.Renew(ctx, int64(foreign.ID))
	require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	for _, op := range []client.Op{
		client.Put("shut/b", nil), client.Put("open/f", nil, client.WithLease(int64(foreign.ID))), client.Get("shut/a"),
		client.Get("", client.WithPrefix()), client.Delete("open/", client.WithFromKey()),
		client.Txn([]client.Compare{client.IfCreated("shut/a", client.Equal, 0)}, nil, []client.Op{client.Get("open/a")}),
	} {
		_, err := ann.Do(ctx, op)
		require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	}
	for _, err := range ann.Watch(ctx, "", client.WithPrefix()) {
		require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	}
	facade, err := etcd.New(client.Config{Endpoints: c.Endpoints(), Username: "ann", Password: "a"})
	require.NoError(t, err)
	defer facade.Close()
	do(facade.Put(ctx, "open/e", "5"))
	_, err = facade.Get(ctx, "shut/a")
	require.Equal(t, rpctypes.ErrPermissionDenied, err)
	_, err = facade.Compact(ctx, 1)
	require.Equal(t, rpctypes.ErrPermissionDenied, err)

	// Tokens from before are void; a client that has a password gets another.
	do(root.AuthDisable(ctx))
	do(nobody.Get(ctx, "shut/a"))
	do(anybody.AuthEnable(ctx))
	root = asRoot()
	do(ann.Grant(ctx, time.Minute))

	ended := make(chan error, 1)
	go func() {
		for _, err := range ann.Watch(ctx, "open/", client.WithPrefix(), client.FromRevision(1)) {
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	do(root.UserRevokeRole(ctx, "ann", "opener"))
	require.ErrorIs(t, <-ended, rpctypes.ErrGRPCPermissionDenied)
	_, err = ann.Get(ctx, "open/a")
	require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)

	do(root.UserGrantRole(ctx, "ann", "opener"))
	do(root.UserChangePassword(ctx, "ann", "b"))
	_, err = ann.Put(ctx, "open/a", nil)
	require.ErrorIs(t, err, rpctypes.ErrGRPCAuthFailed)
	do(connect(t, c, user("ann", "b")).Get(ctx, "open/a"))
}

// A client without a user's name is the user whom its certificate names, at every node, where nodes go by it; a name and a
// password count for more.
func TestUsersOfCertificates(t *testing.T) {
	t.Parallel()
	certs := testcluster.NewCertificates(t)
	c := testcluster.Start(t, testcluster.Options{Splits: "g,n,t", Edit: certs.NameUsers(t)})
	ctx := t.Context()
	do := func(_ any, err error) {
		t.Helper()
		require.NoError(t, err)
	}
	by := func(name string) func(*client.Config) {
		tls := testcluster.Config(t, certs.Issue(t, name, time.Hour))
		return func(cfg *client.Config) { cfg.TLS = tls }
	}
	admin, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), TLS: testcluster.Config(t, certs.Issue(t, "root", time.Hour)), DialTimeout: 20 * time.Second, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, admin.Close()) })
	users(t, admin)

	ann := connect(t, c, by("ann"))
	lease, err := ann.Grant(ctx, time.Minute)
	require.NoError(t, err)
	do(ann.Put(ctx, "open/a", []byte("1"), client.WithLease(lease)))
	do(ann.Renew(ctx, lease))
	do(ann.Get(ctx, "open/", client.WithPrefix()))
	for _, op := range []client.Op{client.Get("grape"), client.Get("orange"), client.Put("tomato", nil), client.Get("", client.WithPrefix())} {
		_, err := ann.Do(ctx, op)
		require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	}
	for _, err := range ann.Watch(ctx, "", client.WithPrefix()) {
		require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	}

	bob := connect(t, c, by("bob"))
	_, err = bob.Get(ctx, "open/a")
	require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied, "there is no bob")
	do(admin.UserAddWithOptions(ctx, "bob", "", &clientv3.UserAddOptions{NoPassword: true}))
	do(admin.UserGrantRole(ctx, "bob", "opener"))
	do(bob.Get(ctx, "open/a")) // by the same stream

	do(connect(t, c, by("carol"), user("ann", "a")).Get(ctx, "open/a"))
	_, err = connect(t, c, by("ann"), user("ann", "wrong")).Get(ctx, "open/a")
	require.ErrorIs(t, err, rpctypes.ErrGRPCAuthFailed, "the certificate does not stand in for the password")

	do(admin.UserRevokeRole(ctx, "ann", "opener"))
	_, err = ann.Get(ctx, "open/a")
	require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
}

// With JWT, any change of users and roles makes every token void: clients get others by themselves,
// also when a node has restarted.
func TestUsersWithJWT(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("a secret of the nodes"), 0o600))
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4", AuthToken: "jwt,sign-method=HS256,priv-key=" + secret})
	ctx := t.Context()
	do := func(_ any, err error) {
		t.Helper()
		require.NoError(t, err)
	}
	users(t, c.Client(t, c.Node(1)))
	ann := connect(t, c, user("ann", "a"))
	do(ann.Put(ctx, "open/a", []byte("1")))
	_, err := ann.Get(ctx, "shut/a")
	require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	root, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), Username: "root", Password: "r", DialTimeout: 20 * time.Second, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, root.Close()) })
	for range 2 {
		do(root.RoleAdd(ctx, "other"))
		do(ann.Put(ctx, "open/b", []byte("2")))
		do(root.RoleDelete(ctx, "other"))
		c.Node(2).Restart(t)
		do(ann.Get(ctx, "open/", client.WithPrefix()))
		do(ann.Put(ctx, "open/c", []byte("3")))
	}
	do(root.UserRevokeRole(ctx, "ann", "opener"))
	_, err = ann.Get(ctx, "open/a")
	require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
}
