package conformance

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// stepTimeout is far above what any step takes; it only ends a hung server.
const stepTimeout = 15 * time.Second

// run is one script being told to one server.
type run struct {
	asker *asker
	// revisions holds the header revision of every step answered so far, and base.
	revisions map[Ref]int64
	// tokens holds those that steps kept, by name.
	tokens map[string]string
	// authRevision is the number of changes to users and roles before the script.
	authRevision uint64
}

// begin empties the store and notes its revision as base. It removes users and roles, too.
func begin(ctx context.Context, a *asker) (*run, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	authRevision, err := a.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("empty the store: %w", err)
	}
	resp, err := a.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: zero(), RangeEnd: zero()})
	if err != nil {
		return nil, fmt.Errorf("empty the store: %w", err)
	}
	return &run{
		asker: a, revisions: map[Ref]int64{base: resp.Header.Revision},
		tokens: make(map[string]string), authRevision: authRevision,
	}, nil
}

// step asks one question. The error tells that it could not be asked, as opposed
// to having been answered with an error.
func (r *run) step(ctx context.Context, i int, s Step) (shape string, revisions []int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	var missing error
	req := resolve(s.Request, func(ref Ref, distance int) int64 {
		revision, ok := r.revisions[ref]
		if !ok {
			missing = fmt.Errorf("step %d refers to step %d, which got no revision", i, int(ref))
		}
		return revision + int64(distance)
	})
	if missing != nil {
		return "", nil, missing
	}
	if s.Token != "" {
		token, kept := r.tokens[s.Token]
		if !kept {
			token = s.Token
		}
		ctx = withToken(ctx, token)
	}
	resp, err := r.asker.ask(ctx, req, s.Stream)
	if code := status.Code(err); code == codes.DeadlineExceeded || code == codes.Unavailable {
		return "", nil, fmt.Errorf("step %d: %w", i, err)
	}
	switch resp := resp.(type) {
	case *pb.AuthenticateResponse:
		if err == nil && resp.Token != "" {
			r.tokens[s.Keep], resp.Token = resp.Token, "some"
		}
	case *pb.AuthStatusResponse:
		if err == nil {
			resp.AuthRevision -= r.authRevision
		}
	}
	if err == nil {
		if revision, ok := headerRevision(resp); ok {
			r.revisions[Ref(i)] = revision
		}
	}
	shape, revisions = answerOf(resp, err)
	return shape, revisions, nil
}

// serializable tells whether the request allows a stale answer, as etcd sees it: a
// transaction without operations does.
func serializable(req proto.Message) bool {
	switch req := req.(type) {
	case *pb.RangeRequest:
		return req.Serializable
	case *pb.TxnRequest:
		for _, op := range append(append([]*pb.RequestOp{}, req.Success...), req.Failure...) {
			if r := op.GetRequestRange(); r == nil || !r.Serializable {
				return false
			}
		}
		return true
	}
	return false
}
