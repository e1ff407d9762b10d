package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/shard"
)

// login obtains tokens for the client's user, by etcd's Auth service. All connections share one token: every node knows
// all of them.
type login struct {
	name, password string

	mu struct {
		sync.Mutex
		known   bool // token is worth a try
		token   string
		failed  error                                 // the last refusal
		at      time.Time                             // of failed
		flying  map[grpc.ClientConnInterface]*attempt // under way, one at a node
		began   time.Time                             // when the last of them did
		changed chan struct{}                         // closed when one of them has ended
	}
}

// attempt is a login under way.
type attempt struct {
	cancel   context.CancelFunc
	outdated bool // another one has been answered meanwhile
}

// loginPause is how long a refusal stands: each costs a node a tenth of a second of a processor.
const loginPause = time.Second

// loginWait bounds one attempt, which may wait for others at the node.
const loginWait = 5 * time.Second

// loginHedge is how long an attempt may take before there is another one, at another node: a node that is silent must not keep the
// others from being used. Each further one waits twice as long, since it may be all nodes that are slow: there are at most four at a time,
// and usually one.
const loginHedge = 500 * time.Millisecond

// newLogin returns nil for a client without a user.
func newLogin(cfg Config) *login {
	if cfg.Username == "" {
		return nil
	}
	l := &login{name: cfg.Username, password: cfg.Password}
	l.mu.flying, l.mu.changed = make(map[grpc.ClientConnInterface]*attempt), make(chan struct{})
	return l
}

// at is the login at one node.
func (l *login) at(conn *grpc.ClientConn) *nodeLogin { return &nodeLogin{l, conn} }

// nodeLogin implements peer.Login.
type nodeLogin struct {
	*login
	conn grpc.ClientConnInterface
}

// Token implements peer.Login.
func (n *nodeLogin) Token(ctx context.Context) (string, error) { return n.get(ctx, n.conn) }

// get returns the token, "" while authentication is not enabled. An error is certain: what the token was for was not sent.
func (l *login) get(ctx context.Context, conn grpc.ClientConnInterface) (string, error) {
	for {
		l.mu.Lock()
		switch {
		case l.mu.known:
			defer l.mu.Unlock()
			return l.mu.token, nil
		case l.mu.failed != nil && time.Since(l.mu.at) < loginPause:
			defer l.mu.Unlock()
			return "", l.mu.failed
		}
		changed, young := l.mu.changed, loginHedge<<max(0, len(l.mu.flying)-1)-time.Since(l.mu.began)
		if len(l.mu.flying) == 0 || l.mu.flying[conn] == nil && young <= 0 {
			trying, cancel := context.WithTimeout(ctx, loginWait)
			a := &attempt{cancel: cancel}
			l.mu.flying[conn], l.mu.began = a, time.Now()
			l.mu.Unlock()
			if token, err, ended := l.try(trying, conn, a); ended {
				return token, err
			}
			continue
		}
		var hedge <-chan time.Time // nil where this node's own attempt is awaited
		if l.mu.flying[conn] == nil {
			hedge = time.After(young)
		}
		l.mu.Unlock()
		select {
		case <-changed:
		case <-hedge:
		case <-ctx.Done():
			return "", fmt.Errorf("log in as %q: %w: %w", l.name, shard.ErrUnavailable, context.Cause(ctx))
		}
	}
}

// try logs in at a node. It has not ended if another attempt was answered first: by that one the token is known, or why there is none.
func (l *login) try(ctx context.Context, conn grpc.ClientConnInterface, a *attempt) (token string, err error, ended bool) {
	defer a.cancel()
	resp, err := pb.NewAuthClient(conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: l.name, Password: l.password})
	if isStatus(err, rpctypes.ErrGRPCAuthNotEnabled) {
		resp, err = &pb.AuthenticateResponse{}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.outdated {
		return "", nil, false
	}
	delete(l.mu.flying, conn)
	close(l.mu.changed)
	l.mu.changed = make(chan struct{})
	switch status.Code(err) {
	case codes.OK:
		l.mu.known, l.mu.token, l.mu.failed = true, resp.Token, nil
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument, codes.FailedPrecondition: // any node would say so
		l.mu.failed, l.mu.at = fmt.Errorf("log in as %q: %w", l.name, err), time.Now()
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted:
		return "", fmt.Errorf("log in as %q: %w: %s", l.name, shard.ErrUnavailable, status.Convert(err).Message()), true
	default: // something is wrong with the node, or it is none
		return "", fmt.Errorf("log in as %q: %w", l.name, err), true
	}
	// What the others are told may be about what was before, so it must not count after this.
	for _, other := range l.mu.flying {
		other.outdated = true
		other.cancel()
	}
	clear(l.mu.flying)
	return l.mu.token, l.mu.failed, true
}

// Refused implements peer.Login.
func (l *login) Refused(token string, err error) bool {
	if !isStatus(err, rpctypes.ErrGRPCInvalidAuthToken) && !isStatus(err, rpctypes.ErrGRPCAuthOldRevision) && !isStatus(err, rpctypes.ErrGRPCUserEmpty) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.known && l.mu.token == token {
		l.mu.known, l.mu.token = false, ""
	}
	return true
}

// isStatus reports whether err is one of etcd's refusals.
func isStatus(err, refusal error) bool {
	var coded interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &coded) {
		return false
	}
	got, want := coded.GRPCStatus(), status.Convert(refusal)
	return got.Code() == want.Code() && got.Message() == want.Message()
}

func withToken(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
}

// unary is the interceptor of calls other than the streams of package peer. One that was refused because of its token has
// done nothing, and is made once more.
func (l *login) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if method == pb.Auth_Authenticate_FullMethodName {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	for again := false; ; again = true {
		token, err := l.get(ctx, cc)
		if err != nil {
			return callError(err)
		}
		if err = invoke(withToken(ctx, token), method, req, reply, cc, opts...); err == nil || again || !l.Refused(token, err) {
			return err
		}
	}
}

// callError is the error of a call for which there is no token.
func callError(err error) error {
	if errors.Is(err, shard.ErrUnavailable) {
		return status.Error(codes.Unavailable, err.Error())
	}
	return err
}

// refusal reports whether err says that the client's user may not do it, or is none: another node would say the same.
func refusal(err error) bool {
	var coded interface{ GRPCStatus() *status.Status }
	if errors.Is(err, shard.ErrUnavailable) || !errors.As(err, &coded) {
		return false
	}
	switch coded.GRPCStatus().Code() {
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument:
		return true
	}
	return false
}
