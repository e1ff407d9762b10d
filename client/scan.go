package client

import (
	"context"
	"errors"
	"iter"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// errStopped ends a scan whose reader has had enough.
var errStopped = errors.New("the reader has stopped")

// Scan yields the keys of a span one by one, in key order, from one snapshot, and holds no
// more than about a megabyte of them. Its options are those of Get but Descending and
// CountOnly.
func (c *Client) Scan(ctx context.Context, key string, options ...Option) iter.Seq2[*mvccpb.KeyValue, error] {
	return func(yield func(*mvccpb.KeyValue, error) bool) {
		op := Get(key, options...)
		if op.err == nil && (op.get.SortOrder != pb.RangeRequest_NONE || op.get.CountOnly) {
			op.err = errors.New("a scan is in key order and yields keys: Descending and CountOnly mean nothing to it")
		}
		if err := op.check(); err != nil {
			yield(nil, err)
			return
		}
		err := c.router.RangeStream(ctx, op.get, func(chunk *pb.RangeResponse) error {
			for _, kv := range chunk.Kvs {
				if !yield(kv, nil) {
					return errStopped
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStopped) {
			yield(nil, op.explain(err))
		}
	}
}
