package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/metadata"
)

// Claims are what a token says.
type Claims struct {
	User       string
	Credential uint64    // of the user, as of Revision; 0: the token says nothing about it
	Revision   uint64    // of users and roles, when it was made
	Expires    time.Time // zero: never, as in etcd for a JWT that somebody else made and that does not say
}

// Signer makes tokens and reads those of all nodes.
type Signer interface {
	Sign(key []byte, c Claims) (string, error)
	// Read returns what a token says, if its signature is right and nothing in it says that it is not valid now. The
	// caller compares Expires.
	Read(key []byte, token string, now time.Time) (Claims, bool)
	TTL() time.Duration
	// Bound says that a token is void as soon as anything in users and roles has changed, as etcd's JWT are.
	Bound() bool
}

// DefaultTTL is how long tokens are valid: etcd's.
const DefaultTTL = 5 * time.Minute

// Simple signs tokens with a key from the placement table, so that every node can read them.
type Simple struct {
	Valid time.Duration // 0: DefaultTTL
}

// TTL implements Signer.
func (s Simple) TTL() time.Duration {
	if s.Valid == 0 {
		return DefaultTTL
	}
	return s.Valid
}

// Bound implements Signer.
func (Simple) Bound() bool { return false }

// Sign implements Signer.
func (Simple) Sign(key []byte, c Claims) (string, error) {
	data := make([]byte, 8, 40+len(c.User))
	rand.Read(data) // so that no two tokens are equal
	for _, n := range []uint64{c.Credential, c.Revision, uint64(c.Expires.UnixMilli())} {
		data = binary.BigEndian.AppendUint64(data, n)
	}
	data = append(data, c.User...)
	code := base64.RawURLEncoding
	return code.EncodeToString(data) + "." + code.EncodeToString(sum(key, data)), nil
}

func sum(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(data)
	return h.Sum(nil)
}

// Read implements Signer.
func (Simple) Read(key []byte, token string, _ time.Time) (Claims, bool) {
	text, signature, _ := strings.Cut(token, ".")
	code := base64.RawURLEncoding
	data, err := code.DecodeString(text)
	signed, err2 := code.DecodeString(signature)
	if errors.Join(err, err2) != nil || len(key) == 0 || len(data) <= 32 || !hmac.Equal(signed, sum(key, data)) {
		return Claims{}, false
	}
	at := func(i int) uint64 { return binary.BigEndian.Uint64(data[8*i:]) }
	return Claims{User: string(data[32:]), Credential: at(1), Revision: at(2), Expires: time.UnixMilli(int64(at(3)))}, true
}

// ownPrefix marks delegated tokens.
const ownPrefix = "own:"

// Delegate returns a token with which this node makes requests to itself on behalf of the caller; "" if the caller needs none. It
// is valid as long as the user's password, on this node only.
func (c *Caller) Delegate() (string, error) {
	v, id, err := c.who()
	if v == nil {
		return "", err
	}
	token, err := Simple{}.Sign(c.guard.own[:], Claims{User: id.name, Credential: id.credential, Revision: v.Revision})
	return ownPrefix + token, err
}

// As returns a context for requests that this node makes to itself on behalf of the caller of ctx.
func (g *Guard) As(ctx context.Context) (context.Context, error) {
	if g.Open() {
		return ctx, nil
	}
	token, err := g.Of(ctx).Delegate()
	if err != nil || token == "" {
		return ctx, err
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token), nil
}

// read returns whose token it is.
func (g *Guard) read(v *view, token string) (*identity, error) {
	var claims Claims
	var ok bool
	now := g.cfg.Now()
	if own, is := strings.CutPrefix(token, ownPrefix); is {
		claims, ok = Simple{}.Read(g.own[:], own, now)
	} else {
		claims, ok = g.cfg.Signer.Read(v.TokenKey, token, now)
		ok = ok && (claims.Expires.IsZero() || now.Before(claims.Expires))
		if ok && g.cfg.Signer.Bound() && claims.Revision < v.Revision {
			return nil, rpctypes.ErrGRPCAuthOldRevision
		}
	}
	user := v.User(claims.User)
	switch {
	case !ok:
		return nil, rpctypes.ErrGRPCInvalidAuthToken
	case user == nil && g.cfg.Signer.Bound(): // as in etcd, whose JWT may name anybody
		return &identity{name: claims.User}, nil
	case user == nil, claims.Credential != 0 && claims.Credential != user.Credential:
		return nil, rpctypes.ErrGRPCInvalidAuthToken
	}
	return &identity{claims.User, user.Credential}, nil
}
