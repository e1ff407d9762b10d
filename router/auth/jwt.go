package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ParseSigner returns the Signer of etcd's option --auth-token: simple, or jwt with the files of keys, for example
// "jwt,pub-key=PUB,priv-key=PRIV,sign-method=RS256,ttl=10m".
func ParseSigner(option string) (Signer, error) {
	parts := strings.Split(option, ",")
	values := make(map[string]string)
	for _, part := range parts[1:] {
		name, value, ok := strings.Cut(part, "=")
		if _, twice := values[name]; !ok || twice {
			return nil, fmt.Errorf("%q is not name=value, or given twice", part)
		}
		values[name] = value
	}
	switch parts[0] {
	case "", "simple":
		if len(values) > 0 {
			return nil, errors.New("simple has no options")
		}
		return Simple{}, nil
	case "jwt":
		return newJWT(values)
	}
	return nil, fmt.Errorf("%q: want simple or jwt", parts[0])
}

// jwtSigner signs with keys from files, which are the same on all nodes.
type jwtSigner struct {
	method jwt.SigningMethod
	sign   any // nil: this node only verifies
	verify any
	ttl    time.Duration
}

func newJWT(values map[string]string) (*jwtSigner, error) {
	s := &jwtSigner{ttl: DefaultTTL, method: jwt.GetSigningMethod(values["sign-method"])}
	if s.method == nil || s.method.Alg() == jwt.SigningMethodNone.Alg() {
		return nil, fmt.Errorf("sign-method %q: want RS256, ES256, EdDSA or HS256, for example", values["sign-method"])
	}
	var private, public []byte
	for name, value := range values {
		var err error
		switch name {
		case "sign-method":
		case "ttl":
			if s.ttl, err = time.ParseDuration(value); err == nil && s.ttl <= 0 {
				err = errors.New("it is not above 0")
			}
		case "pub-key":
			public, err = os.ReadFile(value)
		case "priv-key":
			private, err = os.ReadFile(value)
		default:
			err = errors.New("there is no such option")
		}
		if err != nil {
			return nil, fmt.Errorf("%s=%s: %w", name, value, err)
		}
	}
	if len(private)+len(public) == 0 {
		return nil, errors.New("jwt needs priv-key=FILE, to make tokens, or pub-key=FILE, only to verify them")
	}
	if err := s.keys(private, public); err != nil {
		return nil, err
	}
	return s, nil
}

// keys parses the keys, and checks that they belong together.
func (s *jwtSigner) keys(private, public []byte) error {
	type pair struct {
		private func([]byte) (sign, verify any, err error)
		public  func([]byte) (any, error)
	}
	var of pair
	switch s.method.(type) {
	case *jwt.SigningMethodHMAC:
		if len(private) == 0 {
			return errors.New("an HS method needs priv-key=FILE")
		}
		s.sign, s.verify = private, private
		return nil
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		of = pair{func(b []byte) (any, any, error) {
			k, err := jwt.ParseRSAPrivateKeyFromPEM(b)
			if err != nil {
				return nil, nil, err
			}
			return k, &k.PublicKey, nil
		}, func(b []byte) (any, error) { return jwt.ParseRSAPublicKeyFromPEM(b) }}
	case *jwt.SigningMethodECDSA:
		of = pair{func(b []byte) (any, any, error) {
			k, err := jwt.ParseECPrivateKeyFromPEM(b)
			if err != nil {
				return nil, nil, err
			}
			return k, &k.PublicKey, nil
		}, func(b []byte) (any, error) { return jwt.ParseECPublicKeyFromPEM(b) }}
	case *jwt.SigningMethodEd25519:
		of = pair{func(b []byte) (any, any, error) {
			k, err := jwt.ParseEdPrivateKeyFromPEM(b)
			if err != nil {
				return nil, nil, err
			}
			return k, k.(ed25519.PrivateKey).Public(), nil
		}, func(b []byte) (any, error) { return jwt.ParseEdPublicKeyFromPEM(b) }}
	default:
		return fmt.Errorf("sign-method %s is not supported", s.method.Alg())
	}
	var err error
	if len(private) > 0 {
		if s.sign, s.verify, err = of.private(private); err != nil {
			return fmt.Errorf("read priv-key: %w", err)
		}
	}
	if len(public) == 0 {
		return nil
	}
	key, err := of.public(public)
	if err != nil {
		return fmt.Errorf("read pub-key: %w", err)
	}
	if s.verify != nil && !equalKeys(s.verify, key) {
		return errors.New("pub-key and priv-key do not belong together")
	}
	s.verify = key
	return nil
}

func equalKeys(a, b any) bool {
	switch a := a.(type) {
	case *rsa.PublicKey:
		k, ok := b.(*rsa.PublicKey)
		return ok && a.Equal(k)
	case *ecdsa.PublicKey:
		k, ok := b.(*ecdsa.PublicKey)
		return ok && a.Equal(k)
	case ed25519.PublicKey:
		k, ok := b.(ed25519.PublicKey)
		return ok && a.Equal(k)
	}
	return false
}

// TTL implements Signer.
func (s *jwtSigner) TTL() time.Duration { return s.ttl }

// Bound implements Signer.
func (*jwtSigner) Bound() bool { return true }

// Sign implements Signer.
func (s *jwtSigner) Sign(_ []byte, c Claims) (string, error) {
	if s.sign == nil {
		return "", status.Error(codes.Unknown, "auth: token signing attempted with verify-only key")
	}
	token, err := jwt.NewWithClaims(s.method, jwt.MapClaims{
		"username": c.User, "revision": c.Revision, "exp": c.Expires.Unix(),
	}).SignedString(s.sign)
	if err != nil {
		return "", status.Errorf(codes.Internal, "flotilla: sign a token: %v", err)
	}
	return token, nil
}

// Read implements Signer. The claims are etcd's.
func (s *jwtSigner) Read(_ []byte, token string) (Claims, bool) {
	parsed, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return s.verify, nil },
		jwt.WithValidMethods([]string{s.method.Alg()}), jwt.WithoutClaimsValidation())
	if err != nil || !parsed.Valid {
		return Claims{}, false
	}
	claims, _ := parsed.Claims.(jwt.MapClaims)
	user, ok := claims["username"].(string)
	revision, ok2 := claims["revision"].(float64)
	expires := time.Unix(1<<40, 0) // as in etcd, a token that somebody else has made need not expire
	if exp, err := claims.GetExpirationTime(); err != nil {
		return Claims{}, false
	} else if exp != nil {
		expires = exp.Time
	}
	return Claims{User: user, Revision: uint64(revision), Expires: expires}, ok && ok2
}
