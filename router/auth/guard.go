package auth

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
)

// Trust is for how long a node may permit requests by a copy of the table after it was confirmed (G2). A
// new leader of the meta group is elected within it, so that clients notice nothing.
const Trust = 4 * time.Second

// Settled is how long after a change of the table no node permits anything by an older copy any more, even if it
// cannot be asked: Trust, by clocks of which one may run 5 % faster than the other.
const Settled = Trust + Trust/20

// Config configures a Guard.
type Config struct {
	// Uptime is a monotonic clock. Default: the time since the Guard was made.
	Uptime func() time.Duration
	// Now is the wall clock, by which tokens expire. Default: the system's.
	Now func() time.Time
	// Signer makes and reads tokens. Default: Simple, with its default TTL.
	Signer Signer
	// CommonName returns the name in the verified client certificate of a call's connection, "" if there is none: the
	// user of calls without a token. Default: certificates name nobody.
	CommonName func(context.Context) string
	// Sealed says that the node was away and may not know that authentication is enabled (G2).
	Sealed bool
}

// Guard judges requests by the node's copy of the placement table.
type Guard struct {
	cfg Config
	own [32]byte // signs delegated tokens

	view  atomic.Pointer[view] // nil: everything is permitted (G1)
	until atomic.Int64         // Uptime until which view may be trusted

	mu     sync.Mutex
	sealed bool
	newest *placement.Auth // of all that was told, also while sealed

	watching struct {
		sync.Mutex
		each map[*func()]struct{}
	}
}

// view is one state of users and roles.
type view struct {
	*placement.Auth
	reach sync.Map // by user: *reach
}

// New returns a Guard that permits everything, unless it is sealed.
func New(cfg Config) *Guard {
	if cfg.Uptime == nil {
		began := time.Now()
		cfg.Uptime = func() time.Duration { return time.Since(began) }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Signer == nil {
		cfg.Signer = Simple{}
	}
	g := &Guard{cfg: cfg, sealed: cfg.Sealed}
	rand.Read(g.own[:])
	g.watching.each = make(map[*func()]struct{})
	g.until.Store(-1)
	if g.sealed {
		g.view.Store(&view{Auth: &placement.Auth{}})
	}
	return g
}

// Open reports whether everything is permitted (G1). A nil Guard is open.
func (g *Guard) Open() bool { return g == nil || g.view.Load() == nil }

// Learn takes over what a newer copy of the table says.
func (g *Guard) Learn(a *placement.Auth) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.learn(a)
}

// learn never goes back (G6): whoever confirms may have read the table before another one learned of a change.
func (g *Guard) learn(a *placement.Auth) {
	if g.newest != nil && a.Version < g.newest.Version {
		a = g.newest
	}
	g.newest = a
	old := g.view.Load()
	switch {
	case g.sealed || old != nil && old.Version == a.Version && old.Revision != 0:
		return
	case a.Armed || a.Enabled:
		g.view.Store(&view{Auth: a})
	case old == nil:
		return
	default:
		g.view.Store(nil)
	}
	g.watching.Lock()
	defer g.watching.Unlock()
	for f := range g.watching.each {
		(*f)()
	}
}

// Watch has f called after each change of what is permitted, until stop. f must not block, nor call the Guard's Watch or stop.
func (g *Guard) Watch(f func()) (stop func()) {
	if g == nil {
		return func() {}
	}
	g.watching.Lock()
	defer g.watching.Unlock()
	g.watching.each[&f] = struct{}{}
	return func() {
		g.watching.Lock()
		defer g.watching.Unlock()
		delete(g.watching.each, &f)
	}
}

// Confirm says that a copy of the table contained everything that was acknowledged at a time of Uptime.
func (g *Guard) Confirm(at time.Duration, a *placement.Auth) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sealed = false
	g.until.Store(max(g.until.Load(), int64(at+Trust)))
	g.learn(a)
}

// Uptime is the clock of Confirm.
func (g *Guard) Uptime() time.Duration { return g.cfg.Uptime() }

// errStale is certain: the request is refused before anything is done, and another node may serve it.
func errStale() error {
	return status.Error(codes.Unavailable, "flotilla: this node has not reached the leader of the meta group for some seconds, and does not know who may do what")
}

// Knows reports whether the guard can judge requests: it need not refuse them because its copy of the table is too old.
func (g *Guard) Knows() bool {
	_, err := g.trusted()
	return err == nil
}

// trusted returns the present view, nil if everything is permitted.
func (g *Guard) trusted() (*view, error) {
	if g == nil {
		return nil, nil
	}
	v := g.view.Load()
	switch {
	case v == nil:
		return nil, nil
	case int64(g.cfg.Uptime()) > g.until.Load():
		return nil, errStale()
	case !v.Enabled:
		return nil, nil
	}
	return v, nil
}

// Caller is who makes requests: one call, or a stream of them.
type Caller struct {
	guard *Guard
	token string // as the client sent it
	given bool   // there is a token
	name  string // of the certificate

	known atomic.Pointer[identity] // once found out
}

// identity is a user with the password that the user has shown to know.
type identity struct {
	name       string
	credential uint64
}

// Caller returns who makes a call, by the call's metadata, in lower-case names, and the certificate of its connection.
func (g *Guard) Caller(ctx context.Context, header func(name string) []string) *Caller {
	c := &Caller{guard: g}
	values := header(rpctypes.TokenFieldNameGRPC)
	if len(values) == 0 {
		values = header(rpctypes.TokenFieldNameSwagger)
	}
	if len(values) > 0 {
		c.token, c.given = strings.TrimPrefix(values[0], "Bearer "), true
	}
	// As in etcd, not by way of the gateway, whose connections are its own.
	if g != nil && g.cfg.CommonName != nil && !c.given && len(header("grpcgateway-accept")) == 0 {
		c.name = g.cfg.CommonName(ctx)
	}
	return c
}

// Of returns the caller of a call by its context.
func (g *Guard) Of(ctx context.Context) *Caller {
	if c, ok := ctx.Value(callerKey{}).(*Caller); ok {
		return c
	}
	return g.Caller(ctx, func(name string) []string { return metadata.ValueFromIncomingContext(ctx, name) })
}

type callerKey struct{}

// With returns a context with which Of returns c.
func With(ctx context.Context, c *Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// who returns the view by which to judge the caller, and the caller's user: nil and nil if everything is permitted. An
// identity is found out once, so that a stream outlives its token, but not its user's password (G3, G4).
func (c *Caller) who() (*view, *identity, error) {
	v, err := c.guard.trusted()
	if v == nil {
		return nil, nil, err
	}
	if id := c.known.Load(); id != nil {
		if u := v.User(id.name); u == nil || u.Credential != id.credential {
			return nil, nil, rpctypes.ErrGRPCInvalidAuthToken
		}
		return v, id, nil
	}
	var id *identity
	switch {
	case c.given:
		if id, err = c.guard.read(v, c.token); err != nil {
			return nil, nil, err
		}
	case c.name != "":
		// As in etcd, a certificate's user need not exist; then nothing is permitted.
		id = &identity{name: c.name, credential: v.User(c.name).GetCredential()}
	default:
		return nil, nil, rpctypes.ErrGRPCUserEmpty
	}
	if v.User(id.name) != nil { // who does not exist may be added later, with another password
		c.known.Store(id)
	}
	return v, id, nil
}

// User permits what any user may do.
func (c *Caller) User() error {
	_, _, err := c.who()
	return err
}

// Root permits what users with the role root may do.
func (c *Caller) Root() error {
	v, id, err := c.who()
	if v == nil {
		return err
	}
	switch user := v.User(id.name); {
	case user == nil:
		return rpctypes.ErrGRPCUserNotFound
	case !placement.IsRoot(user):
		return rpctypes.ErrGRPCPermissionDenied
	}
	return nil
}

// Name is the user's name, "" if everything is permitted.
func (c *Caller) Name() (string, error) {
	_, id, err := c.who()
	if id == nil {
		return "", err
	}
	return id.name, nil
}

// IsRoot reports whether the caller need not be asked about single keys.
func (c *Caller) IsRoot() bool { return c.Root() == nil }

// Read permits reading a range as in etcd's API: of one key if end is empty.
func (c *Caller) Read(key, end []byte) error { return c.reaches(key, end, false) }

// ReadSpan permits reading a span of the keyspace.
func (c *Caller) ReadSpan(s shard.Span) error {
	start, end := s.Start, s.End
	if len(start) == 0 {
		start = []byte{0} // the first key there can be
	}
	if len(end) == 0 {
		end = []byte{0}
	}
	return c.Read(start, end)
}

// Write permits changing a range.
func (c *Caller) Write(key, end []byte) error { return c.reaches(key, end, true) }

func (c *Caller) reaches(key, end []byte, write bool) error {
	v, id, err := c.who()
	if v == nil {
		return err
	}
	user := v.User(id.name)
	if user == nil {
		return rpctypes.ErrGRPCPermissionDenied
	}
	if placement.IsRoot(user) || v.reachOf(user).covers(key, end, write) {
		return nil
	}
	return rpctypes.ErrGRPCPermissionDenied
}
