package client

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// Lock is a key that a session holds. It cannot stop a holder that was paused for longer than its
// session lived; the guard and the token can.
type Lock struct {
	session *Session
	key     string
	token   int64
}

// Lock waits until the session holds the key, which must be written only by Lock. It fails with
// ErrSessionOver when the session ends first. The lock is the session's: a second Lock of the key
// returns at once. Goroutines that exclude each other need a session each.
func (s *Session) Lock(ctx context.Context, key string) (*Lock, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !s.client.spawn(func() {
		select {
		case <-s.done:
			cancel(ErrSessionOver)
		case <-ctx.Done():
		}
	}) {
		return nil, ErrClosed
	}
	for {
		held, err := s.client.Txn(ctx, []Compare{IfCreated(key, Equal, 0)},
			[]Op{Put(key, nil, WithLease(s.lease))}, []Op{Get(key)})
		if err != nil {
			return nil, fmt.Errorf("lock %.64q: %w", key, err)
		}
		if held.Succeeded {
			return &Lock{session: s, key: key, token: held.Revision}, nil
		}
		holder := held.Results[0].KV()
		if holder.Lease == s.lease { // an earlier attempt with an unknown outcome
			return &Lock{session: s, key: key, token: holder.CreateRevision}, nil
		}
		if err := s.client.awaitAbsence(ctx, key, held.Revision); err != nil {
			return nil, fmt.Errorf("wait for lock %.64q: %w", key, err)
		}
	}
}

// awaitAbsence returns when the key, which was there at revision rev, has been deleted. What happened meanwhile may have
// been compacted. Then the key itself tells: by a read, since a write that a node does not answer may have been applied.
func (c *Client) awaitAbsence(ctx context.Context, key string, rev int64) error {
	for {
		err := c.awaitDelete(ctx, key, rev+1)
		if !errors.Is(err, shard.ErrCompacted) {
			return err
		}
		now, err := c.Get(ctx, key)
		if err != nil || now.KV() == nil {
			return err
		}
		rev = now.Revision
	}
}

// awaitDelete returns when the key has been deleted at revision rev or later.
func (c *Client) awaitDelete(ctx context.Context, key string, rev int64) error {
	for changes, err := range c.Watch(ctx, key, FromRevision(rev)) {
		if err != nil {
			return err
		}
		for _, e := range changes.Events {
			if e.Type == mvccpb.Event_DELETE {
				return nil
			}
		}
	}
	return context.Cause(ctx)
}

// Guard is a compare that holds as long as the lock does. A transaction with it changes nothing for
// a former holder. The lock's key and the transaction's must lie in one shard: under one prefix,
// for example.
func (l *Lock) Guard() Compare { return IfCreated(l.key, Equal, l.token) }

// Token is a fencing token: it is higher than that of every earlier holder. External systems can
// refuse a request with a lower token than they have seen.
func (l *Lock) Token() int64 { return l.token }

// Unlock releases the lock, if it is still held.
func (l *Lock) Unlock(ctx context.Context) error {
	_, err := l.session.client.Txn(ctx, []Compare{l.Guard()}, []Op{Delete(l.key)}, nil)
	if err != nil {
		return fmt.Errorf("unlock %.64q: %w", l.key, err)
	}
	return nil
}
