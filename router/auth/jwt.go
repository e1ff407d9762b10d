package auth

import (
	"crypto"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ParseSigner returns the Signer that a value of etcd's --auth-token describes: "simple", which "" stands for, or "jwt" with
// its options. The key files of a JWT are read once.
func ParseSigner(text string) (Signer, error) {
	kind, rest, more := strings.Cut(text, ",")
	options := make(map[string]string)
	for more {
		var pair string
		pair, rest, more = strings.Cut(rest, ",")
		name, value, ok := strings.Cut(pair, "=")
		_, twice := options[name]
		switch {
		case !ok || strings.Contains(value, "="):
			return nil, invalidOptions("%q: want NAME=VALUE, with neither = nor a comma in the value", pair)
		case twice:
			return nil, invalidOptions("%s is given twice", name)
		}
		options[name] = value
	}
	switch kind {
	case "", "simple":
		if len(options) > 0 {
			return nil, invalidOptions("simple has no options")
		}
		return Simple{}, nil
	case "jwt":
		return newJWT(options)
	}
	return nil, invalidOptions("%q: want simple or jwt", kind)
}

// invalidOptions begins with all that etcd says.
func invalidOptions(format string, args ...any) error {
	return fmt.Errorf("auth: invalid auth options: "+format, args...)
}

// JWT makes etcd's JSON web tokens, with a key that every node is given, and reads all that were signed with it, by whomever.
type JWT struct {
	method jwt.SigningMethod
	sign   any // nil: this node can only verify
	verify any
	ttl    time.Duration
}

const (
	optionMethod  = "sign-method"
	optionPublic  = "pub-key"
	optionPrivate = "priv-key"
	optionTTL     = "ttl"
)

func newJWT(options map[string]string) (*JWT, error) {
	known := []string{optionMethod, optionPublic, optionPrivate, optionTTL}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if !slices.Contains(known, name) {
			return nil, invalidOptions("%q: jwt has %s", name, strings.Join(known, ", "))
		}
	}
	j := &JWT{ttl: DefaultTTL}
	if text := options[optionTTL]; text != "" {
		var err error
		if j.ttl, err = time.ParseDuration(text); err != nil || j.ttl < time.Second { // a token says in seconds when it ends
			return nil, invalidOptions("%s=%s: want a time from 1s on, such as 5m", optionTTL, text)
		}
	}
	if err := j.readKeys(options); err != nil {
		return nil, err
	}
	if err := j.checkKeys(options); err != nil {
		return nil, err
	}
	return j, nil
}

func (j *JWT) readKeys(options map[string]string) error {
	j.method = jwt.GetSigningMethod(options[optionMethod])
	var private, public func([]byte) (any, error)
	switch j.method.(type) {
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		private, public = anyKey(jwt.ParseRSAPrivateKeyFromPEM), anyKey(jwt.ParseRSAPublicKeyFromPEM)
	case *jwt.SigningMethodECDSA:
		private, public = anyKey(jwt.ParseECPrivateKeyFromPEM), anyKey(jwt.ParseECPublicKeyFromPEM)
	case *jwt.SigningMethodEd25519:
		private, public = anyKey(jwt.ParseEdPrivateKeyFromPEM), anyKey(jwt.ParseEdPublicKeyFromPEM)
	case *jwt.SigningMethodHMAC: // one secret, the private key; as in etcd, a public key says nothing
		private, public = anyKey(secret), anyKey(func([]byte) (any, error) { return nil, nil })
	default: // none, too: such tokens are signed by nobody
		return invalidOptions("%s=%s: want RS256, PS256, ES256, HS256 (or 384 or 512), or EdDSA", optionMethod, options[optionMethod])
	}
	var err error
	if j.sign, err = readKey(options, optionPrivate, private); err != nil {
		return err
	}
	if j.verify, err = readKey(options, optionPublic, public); err != nil {
		return err
	}
	switch own := j.sign.(type) {
	case []byte:
		j.verify = own
	case crypto.Signer:
		given, is := j.verify.(interface{ Equal(crypto.PublicKey) bool })
		if is && !given.Equal(own.Public()) {
			return fmt.Errorf("auth: public and private keys don't match: %s=%s, %s=%s",
				optionPublic, options[optionPublic], optionPrivate, options[optionPrivate])
		}
		j.verify = own.Public()
	}
	if j.verify == nil {
		return fmt.Errorf("auth: missing key data: %s=%s needs %s=FILE to make and to verify tokens; to verify only, %s=FILE is enough, except for HS256, HS384 and HS512",
			optionMethod, j.method.Alg(), optionPrivate, optionPublic)
	}
	return nil
}

func secret(data []byte) ([]byte, error) {
	if len(data) == 0 {
		return nil, errors.New("auth: missing key data: the file is empty")
	}
	return data, nil
}

func anyKey[K any](parse func([]byte) (K, error)) func([]byte) (any, error) {
	return func(data []byte) (any, error) { return parse(data) }
}

// readKey returns the key in the file that an option names, nil if there is no such option.
func readKey(options map[string]string, option string, parse func([]byte) (any, error)) (any, error) {
	file := options[option]
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w", option, file, err)
	}
	key, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: no key for %s=%s: %w", option, file, optionMethod, options[optionMethod], err)
	}
	return key, nil
}

// checkKeys finds keys that the method cannot use: otherwise each login would fail, or each token.
func (j *JWT) checkKeys(options map[string]string) error {
	option := optionPublic
	if j.sign != nil {
		option = optionPrivate
	}
	refuse := func(why error) error {
		return fmt.Errorf("%s=%s: the key does not suit %s=%s: %w", option, options[option], optionMethod, j.method.Alg(), why)
	}
	if m, is := j.method.(*jwt.SigningMethodECDSA); is {
		if key := j.verify.(*ecdsa.PublicKey); key.Params().BitSize != m.CurveBits {
			return refuse(fmt.Errorf("its curve has %d bits, not %d", key.Params().BitSize, m.CurveBits))
		}
	}
	if j.sign == nil {
		return nil
	}
	if _, err := j.method.Sign("probe", j.sign); err != nil {
		return refuse(err)
	}
	return nil
}

// TTL implements Signer.
func (j *JWT) TTL() time.Duration { return j.ttl }

// Bound implements Signer.
func (*JWT) Bound() bool { return true }

// Sign implements Signer. The key of the placement table is not used.
func (j *JWT) Sign(_ []byte, c Claims) (string, error) {
	if j.sign == nil {
		return "", status.Error(codes.Unknown, "auth: token signing attempted with verify-only key")
	}
	claims := jwt.MapClaims{claimUser: c.User, claimRevision: c.Revision, claimExpires: c.Expires.Unix()}
	token, err := jwt.NewWithClaims(j.method, claims).SignedString(j.sign)
	if err != nil {
		return "", status.Errorf(codes.Unknown, "flotilla: sign a token: %s", err)
	}
	return token, nil
}

const (
	claimUser     = "username"
	claimRevision = "revision"
	claimExpires  = "exp"
)

// revisionsMax bounds revisions: JSON's numbers are exact below it, and the conversion of larger ones would be undefined.
const revisionsMax = 1 << 53

// Read implements Signer. The method is the configured one and not the token's: otherwise a token could name another, by which
// the public key, which everybody may know, is a secret.
func (j *JWT) Read(_ []byte, token string, now time.Time) (Claims, bool) {
	parser := jwt.NewParser(jwt.WithValidMethods([]string{j.method.Alg()}), jwt.WithTimeFunc(func() time.Time { return now }))
	said := jwt.MapClaims{}
	if _, err := parser.ParseWithClaims(token, said, func(*jwt.Token) (any, error) { return j.verify, nil }); err != nil {
		return Claims{}, false
	}
	user, _ := said[claimUser].(string)
	revision, ok := said[claimRevision].(float64)
	expires, err := said.GetExpirationTime()
	if user == "" || !ok || revision < 0 || revision >= revisionsMax || err != nil {
		return Claims{}, false
	}
	c := Claims{User: user, Revision: uint64(revision)}
	if expires != nil {
		c.Expires = expires.Time
	}
	return c, true
}
