package node_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
)

// tokenKeys makes a pair of keys for tokens.
func tokenKeys(t *testing.T) (key *ecdsa.PrivateKey, private, public string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	write := func(kind string, der []byte, err error) string {
		require.NoError(t, err)
		file := filepath.Join(t.TempDir(), "key")
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return file
	}
	der, err := x509.MarshalECPrivateKey(key)
	private = write("EC PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(&key.PublicKey)
	return key, private, write("PUBLIC KEY", der, err)
}

// Nodes with the same keys take each other's JWT, until the token's time is over or any user or role has changed. A node that has the
// public key only verifies. Nobody who knows just that key can make a token.
func TestJWTOfACluster(t *testing.T) {
	t.Parallel()
	key, private, public := tokenKeys(t)
	c := testcluster.Start(t, testcluster.Options{Edit: func(name string, cfg *node.Config) {
		cfg.AuthToken = "jwt,sign-method=ES256,ttl=1h,pub-key=" + public
		if name != "n3" {
			cfg.AuthToken += ",priv-key=" + private
		}
	}})
	ctx := t.Context()
	do := func(_ any, err error) {
		t.Helper()
		require.NoError(t, err)
	}
	first, second, verifier := c.Node(1), c.Node(2), c.Node(3)
	anybody := c.Client(t, first)
	do(anybody.UserAdd(ctx, "root", "r"))
	do(anybody.UserGrantRole(ctx, "root", "root"))
	do(anybody.AuthEnable(ctx))

	root := as(t, first, "root", "r")
	do(root.Put(ctx, "k", "1"))
	_, err := clientv3.New(clientv3.Config{Endpoints: []string{first.ClientAddr()}, Username: "root", Password: "wrong", DialTimeout: 10 * time.Second})
	require.Equal(t, rpctypes.ErrAuthFailed, err)
	_, err = c.Client(t, verifier).Authenticate(ctx, "root", "r")
	require.ErrorContains(t, err, "auth: token signing attempted with verify-only key")
	require.Equal(t, codes.Unknown, status.Code(err))
	login := func() string {
		resp, err := anybody.Authenticate(ctx, "root", "r")
		require.NoError(t, err)
		return resp.Token
	}
	// get reads with a token, once: clientv3 would fetch another token, or try again for half a minute.
	get := func(n *testcluster.Node, token string) error {
		t.Helper()
		conn, err := grpc.NewClient("passthrough:///"+n.ClientAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		defer conn.Close()
		with := metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
		_, err = etcdserverpb.NewKVClient(conn).Range(with, &etcdserverpb.RangeRequest{Key: []byte("k")})
		return rpctypes.Error(err)
	}
	token := login()
	for _, n := range []*testcluster.Node{first, second, verifier} {
		require.NoError(t, get(n, token), n.Name)
		require.Equal(t, http.StatusOK, pageFor(t, n, "root", "r"), n.Name)
	}

	var claims jwt.MapClaims
	_, _, err = jwt.NewParser().ParseUnverified(token, &claims)
	require.NoError(t, err)
	require.Equal(t, "root", claims["username"])
	require.Len(t, claims, 3)
	pub, err := os.ReadFile(public)
	require.NoError(t, err)
	forged, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(pub)
	require.NoError(t, err)
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, claims).SignedString(jwt.UnsafeAllowNoneSignatureType)
	require.NoError(t, err)
	own, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(key)
	require.NoError(t, err)
	for _, n := range []*testcluster.Node{first, verifier} {
		require.Equal(t, rpctypes.ErrInvalidAuthToken, get(n, forged))
		require.Equal(t, rpctypes.ErrInvalidAuthToken, get(n, unsigned))
		require.Equal(t, rpctypes.ErrInvalidAuthToken, get(n, token[:strings.LastIndexByte(token, '.')+1]))
		require.NoError(t, get(n, own), "whoever has the private key can make tokens")
	}

	do(root.RoleAdd(ctx, "any"))
	for _, n := range []*testcluster.Node{first, second, verifier} {
		require.Equal(t, rpctypes.ErrAuthOldRevision, get(n, token), n.Name)
	}
	do(root.Put(ctx, "k", "2")) // clientv3 gets another token
	do(root.RoleDelete(ctx, "any"))

	token = login()
	first.Restart(t)
	require.NoError(t, get(first, token), "a restart changes no keys")

	require.NoError(t, get(second, token))
	second.Clock.Set(61 * time.Minute)
	require.Equal(t, rpctypes.ErrInvalidAuthToken, get(second, token))
	second.Clock.Set(0)
	require.NoError(t, get(second, token))
}

// A node does not start with keys that it cannot use, and says which.
func TestJWTWithoutKeys(t *testing.T) {
	t.Parallel()
	_, private, public := tokenKeys(t)
	_, other, _ := tokenKeys(t)
	for options, want := range map[string]string{
		"nop":                   `--auth-token: auth: invalid auth options: "nop": want simple or jwt`,
		"jwt,sign-method=ES256": "--auth-token: auth: missing key data: sign-method=ES256 needs priv-key=FILE",
		"jwt,sign-method=RS256,priv-key=" + private:                      "--auth-token: priv-key=" + private + ": no key for sign-method=RS256",
		"jwt,sign-method=ES256,priv-key=/none":                           "--auth-token: priv-key=/none: open /none: no such file or directory",
		"jwt,sign-method=ES256,pub-key=" + public + ",priv-key=" + other: "--auth-token: auth: public and private keys don't match",
	} {
		c := testcluster.New(t, testcluster.Options{Nodes: 1, Edit: func(_ string, cfg *node.Config) { cfg.AuthToken = options }})
		require.ErrorContains(t, c.Node(1).Run(t.Context()), want)
	}
}
