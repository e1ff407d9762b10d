package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/auth"
)

// keyFiles writes a pair of keys, and returns the names of their files.
func keyFiles(t *testing.T, key crypto.Signer) (private, public string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	private = keyFile(t, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	der, err = x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	return private, keyFile(t, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func keyFile(t *testing.T, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, data, 0o600))
	return file
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	return key
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	return key
}

func signer(t *testing.T, text string) auth.Signer {
	t.Helper()
	s, err := auth.ParseSigner(text)
	require.NoError(t, err)
	return s
}

// Nodes with the same keys read each other's tokens, whatever the method, and no others. A public key is enough to read.
func TestJWTMethods(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	_, otherEd, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	r, otherR := rsaKey(t), rsaKey(t)
	now := time.Unix(1_800_000_000, 0)
	want := auth.Claims{User: "ann", Revision: 7, Expires: now.Add(time.Minute)}
	for method, keys := range map[string][2]crypto.Signer{
		"RS256": {r, otherR}, "RS384": {r, otherR}, "RS512": {r, otherR}, "PS256": {r, otherR}, "PS384": {r, otherR}, "PS512": {r, otherR},
		"ES256": {ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())}, "ES384": {ecKey(t, elliptic.P384()), ecKey(t, elliptic.P384())},
		"ES512": {ecKey(t, elliptic.P521()), ecKey(t, elliptic.P521())}, "EdDSA": {ed, otherEd},
	} {
		private, public := keyFiles(t, keys[0])
		foreign, _ := keyFiles(t, keys[1])
		options := "jwt,sign-method=" + method
		token, err := signer(t, options+",priv-key="+private).Sign(nil, want)
		require.NoError(t, err)
		for _, files := range []string{",priv-key=" + private, ",pub-key=" + public, ",pub-key=" + public + ",priv-key=" + private} {
			got, ok := signer(t, options+files).Read(nil, token, now)
			require.True(t, ok, method+files)
			require.Equal(t, want.Expires.Unix(), got.Expires.Unix())
			got.Expires = want.Expires
			require.Equal(t, want, got)
		}
		_, ok := signer(t, options+",priv-key="+foreign).Read(nil, token, now)
		require.False(t, ok, method)
		_, err = signer(t, options+",pub-key="+public).Sign(nil, want)
		require.Equal(t, status.Error(codes.Unknown, "auth: token signing attempted with verify-only key"), err)
		_, err = auth.ParseSigner(options + ",pub-key=" + public + ",priv-key=" + foreign)
		require.ErrorContains(t, err, "auth: public and private keys don't match: pub-key="+public+", priv-key="+foreign)
	}
	for _, method := range []string{"HS256", "HS384", "HS512"} {
		options := "jwt,sign-method=" + method + ",priv-key="
		s := signer(t, options+keyFile(t, []byte("a secret of the nodes")))
		token, err := s.Sign(nil, want)
		require.NoError(t, err)
		_, ok := s.Read(nil, token, now)
		require.True(t, ok)
		_, ok = signer(t, options+keyFile(t, []byte("another"))).Read(nil, token, now)
		require.False(t, ok)
	}
}

// Whatever a token says of itself, it is verified by the configured method, and says all that etcd's say.
func TestForgedJWT(t *testing.T) {
	key := rsaKey(t)
	private, public := keyFiles(t, key)
	now := time.Unix(1_800_000_000, 0)
	s := signer(t, "jwt,sign-method=RS256,priv-key="+private)
	known, err := os.ReadFile(public)
	require.NoError(t, err)
	root := func() jwt.MapClaims {
		return jwt.MapClaims{"username": "root", "revision": 7, "exp": now.Add(time.Minute).Unix()}
	}
	sign := func(m jwt.SigningMethod, key any, c jwt.MapClaims) string {
		token, err := jwt.NewWithClaims(m, c).SignedString(key)
		require.NoError(t, err)
		return token
	}
	read := func(token string) bool {
		_, ok := s.Read(nil, token, now)
		return ok
	}
	require.True(t, read(sign(jwt.SigningMethodRS256, key, root())))
	for name, token := range map[string]string{
		"the public key as a secret": sign(jwt.SigningMethodHS256, known, root()),
		"signed by nobody":           sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, root()),
		"another method of the key":  sign(jwt.SigningMethodRS512, key, root()),
		"another family of the key":  sign(jwt.SigningMethodPS256, key, root()),
		"no signature":               sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, root()) + "AAAA",
		"a simple token":             "nonsense.nonsense",
		"empty":                      "",
	} {
		require.False(t, read(token), name)
	}
	for claim, values := range map[string][]any{
		"username": {nil, "", 7, []string{"root"}}, "revision": {nil, "7", -1, 1e300, 1 << 53}, "exp": {now.Unix(), "soon"}, "nbf": {now.Unix() + 1},
	} {
		for _, value := range values {
			c := root()
			if c[claim] = value; value == nil {
				delete(c, claim)
			}
			require.False(t, read(sign(jwt.SigningMethodRS256, key, c)), "%s is %v", claim, value)
		}
	}
	// Somebody else's need not end, as in etcd.
	c := root()
	delete(c, "exp")
	got, ok := s.Read(nil, sign(jwt.SigningMethodRS256, key, c), now)
	require.True(t, ok)
	require.True(t, got.Expires.IsZero())
}

func TestAuthTokenOptions(t *testing.T) {
	key := rsaKey(t)
	private, public := keyFiles(t, key)
	curve, _ := keyFiles(t, ecKey(t, elliptic.P384()))
	_, publicCurve := keyFiles(t, ecKey(t, elliptic.P384()))
	junk, empty := keyFile(t, []byte("junk")), keyFile(t, nil)
	rs := "jwt,sign-method=RS256,"
	for text, want := range map[string]string{
		"nop":                         `auth: invalid auth options: "nop": want simple or jwt`,
		"simple,ttl=5m":               "auth: invalid auth options: simple has no options",
		"jwt,":                        `auth: invalid auth options: "": want NAME=VALUE`,
		"jwt,ttl":                     `auth: invalid auth options: "ttl": want NAME=VALUE`,
		"jwt,ttl=a=b":                 `auth: invalid auth options: "ttl=a=b": want NAME=VALUE`,
		"jwt,ttl=5m,ttl=5m":           "auth: invalid auth options: ttl is given twice",
		"jwt,key=x":                   `auth: invalid auth options: "key": jwt has sign-method, pub-key, priv-key, ttl`,
		"jwt":                         "auth: invalid auth options: sign-method=: want RS256",
		"jwt,sign-method=none":        "auth: invalid auth options: sign-method=none: want RS256",
		"jwt,sign-method=RS1":         "auth: invalid auth options: sign-method=RS1: want RS256",
		rs + "ttl=soon":               "auth: invalid auth options: ttl=soon: want a time from 1s on",
		rs + "ttl=0s":                 "auth: invalid auth options: ttl=0s: want a time from 1s on",
		rs + "ttl=-5m":                "auth: invalid auth options: ttl=-5m: want a time from 1s on",
		rs + "ttl=5m":                 "auth: missing key data: sign-method=RS256 needs priv-key=FILE",
		"jwt,sign-method=HS256":       "auth: missing key data: sign-method=HS256 needs priv-key=FILE",
		rs + "priv-key=/no/such/file": "priv-key=/no/such/file: open /no/such/file: no such file",
		rs + "pub-key=/no/such/file":  "pub-key=/no/such/file: open /no/such/file: no such file",
		rs + "priv-key=" + junk:       "priv-key=" + junk + ": no key for sign-method=RS256",
		rs + "pub-key=" + junk:        "pub-key=" + junk + ": no key for sign-method=RS256",
		rs + "priv-key=" + public:     "priv-key=" + public + ": no key for sign-method=RS256",
		rs + "priv-key=" + curve:      "priv-key=" + curve + ": no key for sign-method=RS256",
		"jwt,sign-method=HS256,pub-key=" + public:      "auth: missing key data: sign-method=HS256 needs priv-key=FILE",
		"jwt,sign-method=HS256,priv-key=" + empty:      "priv-key=" + empty + ": no key for sign-method=HS256: auth: missing key data: the file is empty",
		"jwt,sign-method=EdDSA,priv-key=" + private:    "priv-key=" + private + ": no key for sign-method=EdDSA",
		"jwt,sign-method=ES256,priv-key=" + private:    "priv-key=" + private + ": no key for sign-method=ES256",
		"jwt,sign-method=ES256,priv-key=" + curve:      "priv-key=" + curve + ": the key does not suit sign-method=ES256: its curve has 384 bits, not 256",
		"jwt,sign-method=ES256,pub-key=" + publicCurve: "pub-key=" + publicCurve + ": the key does not suit sign-method=ES256: its curve has 384 bits, not 256",
	} {
		_, err := auth.ParseSigner(text)
		require.ErrorContains(t, err, want, text)
	}
	for _, text := range []string{"", "simple"} {
		require.Equal(t, auth.Simple{}, signer(t, text))
	}
	require.Equal(t, auth.DefaultTTL, signer(t, rs+"priv-key="+private).TTL())
	require.Equal(t, time.Hour, signer(t, rs+"ttl=1h,priv-key="+private).TTL())
}

// A JWT ends with its time, and with any change of users and roles. Whoever it names need not exist.
func TestJWTEnds(t *testing.T) {
	w := newWorld(t)
	private, _ := keyFiles(t, ecKey(t, elliptic.P256()))
	s := signer(t, "jwt,sign-method=ES256,ttl=1m,priv-key="+private)
	w.guard = auth.New(auth.Config{Uptime: func() time.Duration { return w.uptime }, Now: func() time.Time { return w.now }, Signer: s})
	w.enable()
	token := w.token("bob")
	stream := w.caller(token)
	require.NoError(t, stream.User())
	w.now = w.now.Add(time.Minute - time.Second)
	require.NoError(t, w.caller(token).User())
	w.now = w.now.Add(time.Second)
	require.Equal(t, rpctypes.ErrGRPCInvalidAuthToken, w.caller(token).User())

	token = w.token("bob")
	w.change(&placementpb.ChangeAuth{Action: placementpb.AuthAction_ROLE_ADD, Role: "another"})
	require.Equal(t, rpctypes.ErrGRPCAuthOldRevision, w.caller(token).Read([]byte("a"), nil))
	require.NoError(t, stream.Read([]byte("a"), nil), "a stream outlives its token")
	token = w.token("bob")
	w.change(&placementpb.ChangeAuth{Action: placementpb.AuthAction_USER_PASSWORD, User: "bob", PasswordHash: []byte("other")})
	require.Equal(t, rpctypes.ErrGRPCAuthOldRevision, w.caller(token).Read([]byte("a"), nil))
	require.Equal(t, rpctypes.ErrGRPCInvalidAuthToken, stream.User(), "and not its password")

	// Of a new revision, in turn, by a node that knows of it before this one.
	ahead, err := s.Sign(nil, auth.Claims{User: "bob", Revision: w.state.Map().Auth().Revision + 1, Expires: w.now.Add(time.Minute)})
	require.NoError(t, err)
	require.NoError(t, w.caller(ahead).Read([]byte("a"), nil))

	nobody, err := s.Sign(nil, auth.Claims{User: "eve", Revision: w.state.Map().Auth().Revision, Expires: w.now.Add(time.Minute)})
	require.NoError(t, err)
	eve := w.caller(nobody)
	for range 2 {
		require.Equal(t, rpctypes.ErrGRPCUserNotFound, eve.Root())
		require.Equal(t, rpctypes.ErrGRPCPermissionDenied, eve.Read([]byte("a"), nil))
	}

	// Requests of this node to itself need no key.
	delegated, err := w.caller(w.token("bob")).Delegate()
	require.NoError(t, err)
	require.NoError(t, w.caller(delegated).Read([]byte("a"), nil))
}
