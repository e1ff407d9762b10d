package client

import (
	"context"
	"errors"
	"iter"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// errEnough ends a scan whose reader has stopped.
var errEnough = errors.New("the reader wants no more")

// Scan yields the keys of a span one by one, in key order, from one snapshot, and holds no more
// than about a megabyte of them. It takes the options of Get, including AtTime, except Descending
// and CountOnly.
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
		each := func(chunk *pb.RangeResponse) error {
			for _, kv := range chunk.Kvs {
				if !yield(kv, nil) {
					return errEnough
				}
			}
			return nil
		}
		err := c.router.RangeStream(ctx, op.get, each)
		if op.notYet(err) { // then nothing was yielded
			var latest *pb.RangeRequest
			if latest, err = c.latest(ctx, &op); err == nil {
				err = c.router.RangeStream(ctx, latest, each)
			}
		}
		if err != nil && !errors.Is(err, errEnough) {
			yield(nil, c.ended(err))
		}
	}
}
