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

	turn chan struct{} // held by who logs in; the others wait for the token
	mu   struct {
		sync.Mutex
		known  bool // token is worth a try
		token  string
		failed error     // the last refusal
		at     time.Time // of failed
	}
}

// loginPause is how long a refusal stands: each costs a node a tenth of a second of a processor.
const loginPause = time.Second

// loginWait bounds one attempt, which may wait for others at the node.
const loginWait = 5 * time.Second

// newLogin returns nil for a client without a user.
func newLogin(cfg Config) *login {
	if cfg.Username == "" {
		return nil
	}
	return &login{name: cfg.Username, password: cfg.Password, turn: make(chan struct{}, 1)}
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
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return "", fmt.Errorf("log in as %q: %w: %w", l.name, shard.ErrUnavailable, context.Cause(ctx))
	}
	l.mu.Lock()
	known, token, failed, at := l.mu.known, l.mu.token, l.mu.failed, l.mu.at
	l.mu.Unlock()
	if known {
		return token, nil
	}
	if failed != nil && time.Since(at) < loginPause {
		return "", failed
	}
	ctx, cancel := context.WithTimeout(ctx, loginWait)
	defer cancel()
	resp, err := pb.NewAuthClient(conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: l.name, Password: l.password})
	if isStatus(err, rpctypes.ErrGRPCAuthNotEnabled) {
		resp, err = &pb.AuthenticateResponse{}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch status.Code(err) {
	case codes.OK:
		l.mu.known, l.mu.token, l.mu.failed = true, resp.Token, nil
		return resp.Token, nil
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted:
		return "", fmt.Errorf("log in as %q: %w: %s", l.name, shard.ErrUnavailable, status.Convert(err).Message())
	}
	l.mu.failed, l.mu.at = fmt.Errorf("log in as %q: %w", l.name, err), time.Now()
	return "", l.mu.failed
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
