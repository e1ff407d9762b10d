package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/internal/rpcfront"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/auth"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// access keeps this node's knowledge of who may do what recent enough to act on (auth G2), and changes it for all
// nodes.
type access struct {
	node   *Node
	guard  *auth.Guard
	signer auth.Signer
	mark   sync.Mutex // the identity's Guarded

	arming arming // run's
}

const (
	confirmInterval = 500 * time.Millisecond
	confirmTimeout  = time.Second
	// armingMax is how long nodes are armed without authentication being enabled. Whoever enables it takes a few seconds,
	// and disarms them if it fails, unless its node dies.
	armingMax = 30 * time.Second
)

func newAccess(n *Node) *access { return &access{node: n} }

// readKeys reads the keys of tokens before anything listens.
func (a *access) readKeys(context.Context) (err error) {
	if a.signer, err = auth.ParseSigner(a.node.cfg.AuthToken); err != nil {
		return fmt.Errorf("--auth-token: %w", err)
	}
	return nil
}

// open makes the guard, when the node's identity is known. A node that has joined cannot know what was enabled before.
func (a *access) open(founder bool) {
	id := a.node.identity
	if !id.Stored && !founder {
		id.Guarded = true // saved together with Stored
	}
	cfg := auth.Config{Sealed: id.Guarded, Signer: a.signer, Now: a.node.cfg.Clock.Now}
	if a.node.cfg.ClientCertAuth {
		cfg.CommonName = commonName
	}
	a.guard = auth.New(cfg)
	a.node.table.learn = a.guard.Learn
}

// commonName is the name in the certificate that the client of a call has shown, and which was verified.
func commonName(ctx context.Context) string {
	secure, _ := rpcfront.Security(ctx)
	for _, chain := range secure.VerifiedChains {
		if len(chain) > 0 {
			return chain[0].Subject.CommonName
		}
	}
	return ""
}

// run confirms the node's copy of the table as long as that matters, until ctx ends.
func (a *access) run(ctx context.Context) {
	for ctx.Err() == nil {
		_, changed := a.node.table.next()
		if a.guard.Open() {
			a.unmark()
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		a.confirm(ctx)
		if at := a.arming.overdue(a.node.table.Map().Auth(), a.guard.Uptime()); at != 0 && a.node.meta.leads() {
			_ = a.disarm(ctx, at)
		}
		_ = pause(ctx, confirmInterval)
	}
}

// know waits until the node's copy of the table is confirmed, for as long as seePast waits. Without it a node that has just
// started refuses everything until run has confirmed the copy.
func (a *access) know(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, pastPatience)
	defer cancel()
	err := until(bounded, func() error {
		if !a.guard.Knows() {
			a.confirm(bounded)
		}
		if !a.guard.Knows() {
			return errors.New("the leader of the meta group does not answer")
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		a.node.log.Warn("serving clients, but refusing them until it is known who may do what", "error", err)
	}
	return context.Cause(ctx)
}

// arming is an attempt to enable authentication.
type arming struct {
	at    uint64 // Auth.ArmedAt
	since time.Duration
}

// overdue returns the ArmedAt of an attempt that has been seen for armingMax; 0 if there is none.
func (t *arming) overdue(a *placement.Auth, now time.Duration) uint64 {
	if a.Enabled || !a.Armed || a.ArmedAt != t.at {
		*t = arming{a.ArmedAt, now}
	}
	if a.Enabled || !a.Armed || now-t.since < armingMax {
		return 0
	}
	return a.ArmedAt
}

// disarm undoes an attempt to enable authentication, unless it has succeeded.
func (a *access) disarm(ctx context.Context, at uint64) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.node.cfg.ProposalTimeout)
	defer cancel()
	_, err := a.node.meta.propose(ctx, placement.ChangeAuth(&placementpb.ChangeAuth{Action: placementpb.AuthAction_DISARM, ArmedAt: at}))
	if err != nil {
		a.node.log.Warn("nodes stay armed for authentication that was not enabled; those that are cut off serve nobody until another attempt to undo it", "error", err)
	}
	return err
}

func (a *access) confirm(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	at := a.guard.Uptime()
	if _, err := a.node.meta.barrier(ctx); err == nil {
		a.guard.Confirm(at, a.node.table.Map().Auth())
	}
}

// unmark forgets that authentication may be enabled.
func (a *access) unmark() {
	a.mark.Lock()
	defer a.mark.Unlock()
	if a.node.identity.Guarded && !a.node.table.Map().Auth().Armed && a.guard.Open() {
		if err := a.save(false); err != nil {
			a.node.log.Debug("the identity stays guarded", "error", err)
		}
	}
}

func (a *access) save(guarded bool) error {
	next := *a.node.identity
	next.Guarded = guarded
	if err := next.save(a.node.cfg.FS, a.node.cfg.DataDir); err != nil {
		return err
	}
	a.node.identity.Guarded = guarded
	return nil
}

// await returns once this node's copy has the version, and the node will still act on it after a restart.
func (a *access) await(ctx context.Context, version uint64) error {
	for {
		m, changed := a.node.table.next()
		if m.Version() >= version {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	a.mark.Lock()
	defer a.mark.Unlock()
	if a.node.identity.Guarded || !a.node.table.Map().Auth().Armed {
		return nil
	}
	return a.save(true)
}

// AwaitMap implements routerpb.PeerServer.
func (s *peerServer) AwaitMap(ctx context.Context, req *routerpb.AwaitMapRequest) (*routerpb.AwaitMapReply, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	if err := s.node.access.await(ctx, req.Version); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &routerpb.AwaitMapReply{Version: req.Version}, nil
}

// Auth implements etcdapi.Users.
func (a *access) Auth(ctx context.Context) (*placement.Auth, error) {
	m, err := a.node.meta.barrier(ctx)
	if err != nil {
		return nil, err
	}
	return m.Auth(), nil
}

// Change implements etcdapi.Users.
func (a *access) Change(ctx context.Context, c *placementpb.ChangeAuth) error {
	if c.Action == placementpb.AuthAction_ENABLE {
		var err error
		if c.ArmedAt, err = a.arm(ctx, c); err != nil {
			return err
		}
		if c.ArmedAt == 0 { // it is enabled; if that has just ended, ENABLE might succeed by an attempt that nobody has confirmed
			return a.settle(ctx, a.node.table.Map().Version(), time.Now())
		}
	}
	result, err := a.node.meta.propose(ctx, placement.ChangeAuth(c))
	if err != nil {
		if c.ArmedAt != 0 {
			_ = a.disarm(ctx, c.ArmedAt)
		}
		return err
	}
	return a.settle(ctx, result.Version, time.Now())
}

// arm has every node refuse to act on old copies from now on, before authentication is enabled. Otherwise a node that
// is cut off would go on serving everybody. It returns what ENABLE must say, 0 if that would change nothing, and has undone
// what it did if it fails.
func (a *access) arm(ctx context.Context, enable *placementpb.ChangeAuth) (at uint64, err error) {
	m, err := a.node.meta.barrier(ctx)
	if err != nil {
		return 0, err
	}
	root := m.Auth().User(placement.Root)
	if m.Auth().Enabled || !placement.IsRoot(root) {
		return 0, m.CheckAuth(enable)
	}
	if !m.Auth().HasRootPassword() {
		return 0, status.Error(codes.FailedPrecondition, "flotilla: no user with the role root has a password, so nobody could disable authentication again; etcdctl user passwd root gives one")
	}
	result, err := a.node.meta.propose(ctx, placement.ChangeAuth(&placementpb.ChangeAuth{Action: placementpb.AuthAction_ARM, ByUser: enable.ByUser}))
	if err != nil {
		return 0, err
	}
	telling, cancel := context.WithTimeout(ctx, auth.Trust)
	defer cancel()
	missing := a.tell(telling, result.Version)
	at = armedBy(a.node.table.Map().Auth(), result.Version)
	if len(missing) == 0 && at != 0 {
		return at, nil
	}
	undone := "; the attempt was undone"
	if at != 0 && a.disarm(ctx, at) != nil {
		undone = fmt.Sprintf("; the attempt is undone by itself within about %s, or by: etcdctl auth disable", armingMax)
	}
	if len(missing) == 0 {
		return 0, status.Error(codes.Aborted, "flotilla: authentication is not enabled, because somebody undid the attempt at the same time; try again")
	}
	return 0, status.Errorf(codes.FailedPrecondition, "flotilla: authentication is not enabled, because nodes %q have not confirmed that they know; start them or remove them from the cluster, and try again%s", missing, undone)
}

// armedBy returns the ArmedAt of an attempt of which those know who have the version of the table. It is 0 if that attempt was
// undone. There may be a later one since, of which they need not know, and which is not this one's to enable or to undo.
func armedBy(now *placement.Auth, version uint64) uint64 {
	if now.ArmedAt > version {
		return 0
	}
	return now.ArmedAt
}

// settle returns when no node permits anything by what was before the version.
func (a *access) settle(ctx context.Context, version uint64, committed time.Time) error {
	left := time.Until(committed.Add(auth.Settled))
	asking, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	if len(a.tell(asking, version)) == 0 {
		return nil
	}
	if err := pause(ctx, time.Until(committed.Add(auth.Settled))); err != nil {
		return fmt.Errorf("wait until all nodes know of a change of users or roles: %w: %w", shard.ErrUnknownOutcome, err)
	}
	return nil
}

// tell returns the names of the nodes that have not confirmed the version until ctx ended.
func (a *access) tell(ctx context.Context, version uint64) []string {
	if err := a.await(ctx, version); err != nil {
		return []string{a.node.cfg.Name}
	}
	var mu sync.Mutex
	var missing []string
	var wg sync.WaitGroup
	for _, n := range a.node.table.Map().Nodes() {
		if n.ID == a.node.self.NodeID {
			continue
		}
		wg.Go(func() {
			for {
				_, err := routerpb.NewPeerClient(a.node.peers.at(n.PeerAddr).Conn()).AwaitMap(ctx, &routerpb.AwaitMapRequest{Version: version})
				if err == nil {
					return
				}
				if pause(ctx, confirmInterval/10) != nil {
					mu.Lock()
					missing = append(missing, n.Name)
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(missing)
	return missing
}

// browsers lets nobody but root users see pages, by HTTP's basic authentication.
func (a *access) browsers(passwords *auth.Passwords, next http.Handler) http.Handler {
	logins := auth.NewLogins(a.guard, passwords)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.guard.Open() {
			next.ServeHTTP(w, r)
			return
		}
		name, password, given := r.BasicAuth()
		err := logins.Nobody()
		switch {
		case err == nil, status.Code(err) == codes.Unavailable: // only armed, or not known; no password would help
		case a.node.clientTLS == nil && !isLoopback(r.RemoteAddr):
			http.Error(w, "flotilla: authentication is enabled, and without TLS anybody on the way could read the password: use TLS, or a browser on the node's machine", http.StatusForbidden)
			return
		case given:
			var c *auth.Caller
			if c, err = logins.Caller(r.Context(), r.RemoteAddr, name, password); err == nil {
				r, err = r.WithContext(auth.With(r.Context(), c)), c.Root()
			}
		}
		switch status.Code(err) {
		case codes.OK:
			next.ServeHTTP(w, r)
		case codes.Unavailable, codes.ResourceExhausted:
			http.Error(w, status.Convert(err).Message(), http.StatusServiceUnavailable)
		default:
			w.Header().Set("WWW-Authenticate", `Basic realm="Flotilla", charset="UTF-8"`)
			http.Error(w, "flotilla: authentication is enabled, and the dashboard is for users with the role root: "+status.Convert(err).Message(), http.StatusUnauthorized)
		}
	})
}

func isLoopback(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
