package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Logins are callers that send their password with each request, as browsers do. A password that was right is remembered,
// as a digest with a key of this process, because checking it takes long.
type Logins struct {
	guard     *Guard
	passwords *Passwords
	key       [32]byte

	mu struct {
		sync.Mutex
		known map[[sha256.Size]byte]identity
	}
}

// loginsMax bounds the passwords that are remembered. Beyond it all are forgotten.
const loginsMax = 128

// NewLogins returns Logins of a guard.
func NewLogins(g *Guard, p *Passwords) *Logins {
	l := &Logins{guard: g, passwords: p}
	rand.Read(l.key[:])
	l.mu.known = make(map[[sha256.Size]byte]identity)
	return l
}

// Nobody permits what is permitted to whoever gives no password.
func (l *Logins) Nobody() error {
	v, err := l.guard.trusted()
	if v != nil {
		return rpctypes.ErrGRPCUserEmpty
	}
	return err
}

// Caller returns the user whose password it is, for a request from an address (host:port).
func (l *Logins) Caller(ctx context.Context, addr, name, password string) (*Caller, error) {
	v, err := l.guard.trusted()
	if err != nil {
		return nil, err
	}
	c := &Caller{guard: l.guard}
	if v == nil {
		return c, nil
	}
	digest := l.digest(name, password)
	l.mu.Lock()
	id, known := l.mu.known[digest]
	l.mu.Unlock()
	if known && v.User(id.name).GetCredential() == id.credential {
		c.known.Store(&id)
		return c, nil
	}
	if err := l.passwords.checkFrom(ctx, host(addr), v.Auth, name, password); err != nil {
		return nil, err
	}
	user := v.User(name)
	if user == nil {
		return nil, rpctypes.ErrGRPCAuthFailed
	}
	id = identity{name, user.Credential}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.known) >= loginsMax {
		clear(l.mu.known)
	}
	l.mu.known[digest] = id
	c.known.Store(&id)
	return c, nil
}

func (l *Logins) digest(name, password string) (out [sha256.Size]byte) {
	h := hmac.New(sha256.New, l.key[:])
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(name)))) // so that no other pair reads the same
	h.Write([]byte(name))
	h.Write([]byte(password))
	copy(out[:], h.Sum(nil))
	return out
}
