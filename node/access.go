package node

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/auth"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// access keeps this node's knowledge of who may do what recent enough to act on (auth G2), and changes it for all
// nodes.
type access struct {
	node  *Node
	guard *auth.Guard
	mark  sync.Mutex // the identity's Guarded
}

const (
	confirmInterval = 500 * time.Millisecond
	confirmTimeout  = time.Second
)

func newAccess(n *Node) *access { return &access{node: n} }

// open makes the guard, when the node's identity is known. A node that has joined cannot know what was enabled before.
func (a *access) open(founder bool) {
	id := a.node.identity
	if !id.Stored && !founder {
		id.Guarded = true // saved together with Stored
	}
	a.guard = auth.New(auth.Config{Sealed: id.Guarded})
	a.node.table.learn = a.guard.Learn
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
		_ = pause(ctx, confirmInterval)
	}
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
		if err := a.arm(ctx, c.ByUser); err != nil {
			return err
		}
	}
	result, err := a.node.meta.propose(ctx, placement.ChangeAuth(c))
	if err != nil {
		return err
	}
	return a.settle(ctx, result.Version, time.Now())
}

// arm has every node refuse to act on old copies from now on, before authentication is enabled. Otherwise a node that
// is cut off would go on serving everybody.
func (a *access) arm(ctx context.Context, by string) error {
	m, err := a.node.meta.barrier(ctx)
	if err != nil {
		return err
	}
	root := m.Auth().User(placement.Root)
	if m.Auth().Enabled || !placement.IsRoot(root) {
		return nil // ENABLE says so
	}
	if !m.Auth().HasRootPassword() {
		return status.Error(codes.FailedPrecondition, "flotilla: no user with the role root has a password, so nobody could disable authentication again; etcdctl user passwd root gives one")
	}
	result, err := a.node.meta.propose(ctx, placement.ChangeAuth(&placementpb.ChangeAuth{Action: placementpb.AuthAction_ARM, ByUser: by}))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, auth.Trust)
	defer cancel()
	if missing := a.tell(ctx, result.Version); len(missing) > 0 {
		return status.Errorf(codes.FailedPrecondition, "flotilla: authentication is not enabled, because nodes %q have not confirmed that they know; start them or remove them from the cluster, and try again, or undo the attempt: etcdctl auth disable", missing)
	}
	return nil
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

// closed returns why those who cannot say who they are get nothing.
func (a *access) closed() error {
	if a.guard.Open() {
		return nil
	}
	return status.Error(codes.PermissionDenied, "flotilla: authentication is enabled; native clients cannot authenticate yet, etcd's can")
}

// keepOut guards pages for browsers.
func (a *access) keepOut(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.guard.Open() {
			http.Error(w, "flotilla: authentication is enabled, and the dashboard cannot tell who asks", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
