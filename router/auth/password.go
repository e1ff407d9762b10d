package auth

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
)

// Passwords hashes and compares passwords. Each takes a tenth of a second of a processor, and anybody may ask for it. So
// half of the processors at most do it at a time, and everything else has the other half. Those who wait are served by
// turns, an address after the other, so that somebody who asks without end keeps only those waiting who share the address.
// The addresses of a network of IPv6 (/64), which one machine has all, count for one.
type Passwords struct {
	cost int

	mu struct {
		sync.Mutex
		free    int                     // how many more may work
		lines   map[string][]chan error // who waits, by address; nil says that it is one's turn, an error that it will not be
		order   []string                // the addresses with lines, the next one first
		waiting int                     // in all lines
	}
}

const (
	// waitingMax bounds the requests of one address that wait: about as many as are served before their clients give up.
	waitingMax = 32
	// waitingAllMax bounds those of all addresses. Beyond it, the longest line loses its last.
	waitingAllMax = 4096
)

// NewPasswords returns Passwords with bcrypt's cost; as in etcd, one that bcrypt does not know stands for its default.
func NewPasswords(cost int) *Passwords {
	if cost < bcrypt.MinCost || cost > bcrypt.MaxCost {
		cost = bcrypt.DefaultCost
	}
	p := &Passwords{cost: cost}
	p.mu.free, p.mu.lines = max(1, runtime.GOMAXPROCS(0)/2), make(map[string][]chan error)
	return p
}

// turn waits until a request from an address may be worked on.
func (p *Passwords) turn(ctx context.Context, addr string) (done func(), err error) {
	addr = network(addr)
	p.mu.Lock()
	line := p.mu.lines[addr]
	switch {
	case p.mu.free > 0: // then nobody waits
		p.mu.free--
		p.mu.Unlock()
		return p.next, nil
	case len(line) >= waitingMax, p.mu.waiting >= waitingAllMax && !p.drop(len(line)+1):
		p.mu.Unlock()
		return nil, errCrowded(addr)
	}
	if len(line) == 0 {
		p.mu.order = append(p.mu.order, addr)
	}
	mine := make(chan error, 1)
	p.mu.lines[addr] = append(p.mu.lines[addr], mine)
	p.mu.waiting++
	p.mu.Unlock()
	select {
	case err := <-mine:
		if err != nil {
			return nil, err
		}
		return p.next, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.mu.lines[addr], mine)
	if i < 0 { // its turn came just now, or never will
		if err := <-mine; err != nil {
			return nil, err
		}
		return p.next, nil
	}
	p.leave(addr, i)
	return nil, status.FromContextError(ctx.Err()).Err()
}

func errCrowded(addr string) error {
	return status.Errorf(codes.ResourceExhausted, "flotilla: too many passwords from %s are waiting to be checked; log in once and keep the token", addr)
}

// drop sends away the last of the longest line, if there is one that is longer than that of somebody who comes. mu is held.
func (p *Passwords) drop(than int) bool {
	longest, found := "", false
	for addr, line := range p.mu.lines {
		if len(line) > than {
			longest, than, found = addr, len(line), true
		}
	}
	if found {
		p.mu.lines[longest][than-1] <- errCrowded(longest)
		p.leave(longest, than-1)
	}
	return found
}

// leave removes a place of an address's line. mu is held.
func (p *Passwords) leave(addr string, i int) {
	p.mu.waiting--
	if p.mu.lines[addr] = slices.Delete(p.mu.lines[addr], i, i+1); len(p.mu.lines[addr]) == 0 {
		delete(p.mu.lines, addr)
		p.mu.order = slices.DeleteFunc(p.mu.order, func(a string) bool { return a == addr })
	}
}

// next gives a turn that has ended to whoever has waited longest at the next address.
func (p *Passwords) next() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.mu.order) == 0 {
		p.mu.free++
		return
	}
	addr := p.mu.order[0]
	first := p.mu.lines[addr][0]
	p.mu.order = append(p.mu.order[1:], addr)
	p.leave(addr, 0)
	first <- nil
}

// From is the address that a call came from.
func From(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	// The node's own gateway is a client in its process, which tells where the HTTP request came from at the end of the
	// header. What other clients say of themselves counts for nothing.
	if p.Addr.Network() == "bufconn" {
		via := metadata.ValueFromIncomingContext(ctx, "x-forwarded-for")
		if len(via) == 0 {
			return ""
		}
		all := strings.Split(via[len(via)-1], ",")
		return strings.TrimSpace(all[len(all)-1])
	}
	return host(p.Addr.String())
}

func host(addr string) string {
	if h, _, err := net.SplitHostPort(addr); err == nil {
		return h
	}
	return addr
}

// network is the address, or the network of one of IPv6.
func network(addr string) string {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return addr
	}
	if ip = ip.WithZone("").Unmap(); ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}

// Hash hashes a password. As in etcd, the error of one that is too long has code Unknown.
func (p *Passwords) Hash(ctx context.Context, password string) ([]byte, error) {
	done, err := p.turn(ctx, From(ctx))
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
	return p.checkFrom(ctx, From(ctx), a, name, password)
}

func (p *Passwords) checkFrom(ctx context.Context, addr string, a *placement.Auth, name, password string) error {
	user := a.User(name)
	switch {
	case !a.Enabled:
		return rpctypes.ErrGRPCAuthNotEnabled
	case user == nil:
		return rpctypes.ErrGRPCAuthFailed
	case user.NoPassword:
		return status.Error(codes.Unknown, "auth: authentication failed, password was given for no password user")
	}
	done, err := p.turn(ctx, addr)
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
