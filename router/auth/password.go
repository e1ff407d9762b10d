package auth

import (
	"context"
	"runtime"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
)

// Passwords hashes and compares passwords. Each takes a tenth of a second of a processor, so at most a quarter of the
// processors is taken by them, but one: others wait. Anybody may ask for it.
type Passwords struct {
	cost  int
	turns chan struct{}
}

// NewPasswords returns Passwords with bcrypt's cost; as in etcd, one that bcrypt does not know stands for its default.
func NewPasswords(cost int) *Passwords {
	if cost < bcrypt.MinCost || cost > bcrypt.MaxCost {
		cost = bcrypt.DefaultCost
	}
	return &Passwords{cost: cost, turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/4))}
}

func (p *Passwords) turn(ctx context.Context) (done func(), err error) {
	select {
	case p.turns <- struct{}{}:
		return func() { <-p.turns }, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// Hash hashes a password. As in etcd, the error of one that is too long has code Unknown.
func (p *Passwords) Hash(ctx context.Context, password string) ([]byte, error) {
	done, err := p.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), p.cost)
	if err != nil {
		return nil, status.Error(codes.Unknown, err.Error())
	}
	return hash, nil
}

// Check returns etcd's error unless it is the user's password.
func (p *Passwords) Check(ctx context.Context, a *placement.Auth, name, password string) error {
	user := a.User(name)
	switch {
	case !a.Enabled:
		return rpctypes.ErrGRPCAuthNotEnabled
	case user == nil:
		return rpctypes.ErrGRPCAuthFailed
	case user.NoPassword:
		return status.Error(codes.Unknown, "auth: authentication failed, password was given for no password user")
	}
	done, err := p.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	if bcrypt.CompareHashAndPassword(user.PasswordHash, []byte(password)) != nil {
		return rpctypes.ErrGRPCAuthFailed
	}
	return nil
}

// Issue makes a token for a user whose password was checked by a.
func (g *Guard) Issue(a *placement.Auth, name string) (string, error) {
	user := a.User(name)
	if !a.Enabled || user == nil {
		return "", rpctypes.ErrGRPCAuthFailed
	}
	return g.cfg.Signer.Sign(a.TokenKey, Claims{
		User: name, Credential: user.Credential, Revision: a.Revision, Expires: g.cfg.Now().Add(g.cfg.Signer.TTL()),
	})
}
