package robustness

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/client/etcd"
	"github.com/flotilla-kv/flotilla/internal/history"
)

// backsOff makes a lost connection be tried again soon. gRPC's own backoff grows to two minutes, longer than any
// fault here lasts.
func backsOff() grpc.DialOption {
	return grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: 300 * time.Millisecond},
		MinConnectTimeout: time.Second,
	})
}

// dial makes an etcd client.
func dial(endpoints []string) (*clientv3.Client, error) {
	cli, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, Logger: zap.NewNop(), DialOptions: []grpc.DialOption{backsOff()},
	})
	if err != nil {
		return nil, fmt.Errorf("dial %v: %w", endpoints, err)
	}
	return cli, nil
}

// dialNative makes a native client that looks like etcd's.
func dialNative(endpoints []string) (*clientv3.Client, error) {
	cli, err := etcd.New(client.Config{Endpoints: endpoints})
	if err != nil {
		return nil, fmt.Errorf("dial %v: %w", endpoints, err)
	}
	return cli, nil
}

// perform sends one request and converts the response.
func perform(ctx context.Context, kv clientv3.KV, req history.Request) (history.Response, error) {
	if req.Read != nil {
		return performRead(ctx, kv, req.Read)
	}
	if a, ok := plain(req); ok {
		return performPlain(ctx, kv, a)
	}
	resp, err := kv.Txn(ctx).If(compares(req.If)...).Then(ops(req.Then)...).Else(ops(req.Else)...).Commit()
	if err != nil {
		return history.Response{}, err
	}
	out := history.Response{Revision: resp.Header.Revision, Succeeded: resp.Succeeded}
	branch := req.Else
	if resp.Succeeded {
		branch = req.Then
	}
	for i, r := range resp.Responses[:min(len(branch), len(resp.Responses))] {
		res := history.Result{KV: history.KV{Key: branch[i].Key}}
		if rng := r.GetResponseRange(); rng != nil && len(rng.Kvs) > 0 {
			res.KV = seenKV(rng.Kvs[0])
		}
		if del := r.GetResponseDeleteRange(); del != nil {
			res.Deleted = del.Deleted > 0
		}
		out.Results = append(out.Results, res)
	}
	return out, nil
}

func performRead(ctx context.Context, kv clientv3.KV, r *history.Read) (history.Response, error) {
	opts := []clientv3.OpOption{clientv3.WithRev(r.Revision)}
	if r.End != "" {
		opts = append(opts, clientv3.WithRange(r.End))
	}
	resp, err := kv.Get(ctx, r.Key, opts...)
	if err != nil {
		return history.Response{}, err
	}
	out := history.Response{Revision: resp.Header.Revision}
	for _, found := range resp.Kvs {
		out.KVs = append(out.KVs, seenKV(found))
	}
	return out, nil
}

// plain returns the only action of a request that is a single unconditional put or delete, for which etcd has
// separate calls.
func plain(req history.Request) (history.Action, bool) {
	if len(req.If) > 0 || len(req.Else) > 0 || len(req.Then) != 1 || req.Then[0].Kind == history.ActionGet {
		return history.Action{}, false
	}
	return req.Then[0], true
}

func performPlain(ctx context.Context, kv clientv3.KV, a history.Action) (history.Response, error) {
	out := history.Response{Succeeded: true, Results: make([]history.Result, 1)}
	if a.Kind == history.ActionPut {
		resp, err := kv.Put(ctx, a.Key, a.Value, clientv3.WithLease(clientv3.LeaseID(a.Lease)))
		if err != nil {
			return history.Response{}, err
		}
		out.Revision = resp.Header.Revision
		return out, nil
	}
	resp, err := kv.Delete(ctx, a.Key)
	if err != nil {
		return history.Response{}, err
	}
	out.Revision, out.Results[0].Deleted = resp.Header.Revision, resp.Deleted > 0
	return out, nil
}

func compares(in []history.Compare) []clientv3.Cmp {
	var out []clientv3.Cmp
	for _, c := range in {
		if c.ByValue {
			out = append(out, clientv3.Compare(clientv3.Value(c.Key), "=", c.Value))
		} else {
			out = append(out, clientv3.Compare(clientv3.ModRevision(c.Key), "=", c.Mod))
		}
	}
	return out
}

func ops(in []history.Action) []clientv3.Op {
	var out []clientv3.Op
	for _, a := range in {
		switch a.Kind {
		case history.ActionPut:
			out = append(out, clientv3.OpPut(a.Key, a.Value, clientv3.WithLease(clientv3.LeaseID(a.Lease))))
		case history.ActionDelete:
			out = append(out, clientv3.OpDelete(a.Key))
		default:
			out = append(out, clientv3.OpGet(a.Key))
		}
	}
	return out
}

func seenKV(kv *mvccpb.KeyValue) history.KV {
	return history.KV{
		Key: string(kv.Key), Value: string(kv.Value),
		Create: kv.CreateRevision, Mod: kv.ModRevision, Version: kv.Version, Lease: kv.Lease,
	}
}

// certain reports whether the error means that nothing was applied and nothing will be (B3). These errors are
// recognised by their codes. But ResourceExhausted can also come from gRPC, about a response that is too large, so of
// that code only etcd's own two errors count.
func certain(err error) bool {
	if errors.Is(err, rpctypes.ErrNoSpace) || errors.Is(err, rpctypes.ErrTooManyRequests) {
		return true
	}
	code := status.Code(err)
	if etcd := (rpctypes.EtcdError{}); errors.As(err, &etcd) {
		code = etcd.Code()
	}
	switch code {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange, codes.NotFound,
		codes.AlreadyExists, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return true
	default:
		return false
	}
}
