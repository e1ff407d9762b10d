package cmd

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// lockTTL is how long a lock or an election outlives its holder.
const lockTTL = 10

func newLock(client *clientFlags) *cobra.Command {
	var ttl int64
	c := &cobra.Command{
		Use:   "lock NAME [COMMAND [ARG...]]",
		Short: "Take a lock, and hold it while a command runs",
		Long: `Take a lock and hold it while the command runs, or until interrupted. The command
finds the lock in ETCD_LOCK_KEY and ETCD_LOCK_REV; if the lock is lost it is
interrupted. Its exit code becomes this one's.`,
		Example: `  flotilla lock deploy ./deploy.sh
  flotilla lock deploy -- make -j4 release`,
		Args: wantArgs(1, math.MaxInt, "NAME, or NAME COMMAND ARG..."),
		RunE: func(c *cobra.Command, args []string) error {
			return client.connected(c, lines(), func(s *session) error {
				return s.lease(ttl, func(held context.Context, lease *concurrency.Session) error {
					return s.lock(held, concurrency.NewMutex(lease, args[0]), args[1:])
				})
			})
		},
	}
	c.Flags().Int64Var(&ttl, "ttl", lockTTL, "seconds after which others get the lock if this command dies")
	return c
}

// lease runs do while it keeps a lease alive, which is revoked afterwards. The context passed to do
// ends when the lease is lost or the command is asked to stop.
func (s *session) lease(ttl int64, do func(held context.Context, lease *concurrency.Session) error) (err error) {
	grant, err := s.grant(ttl)
	if err != nil {
		return err
	}
	lease, err := concurrency.NewSession(s.Client, concurrency.WithLease(grant.ID), concurrency.WithTTL(int(grant.TTL)))
	if err != nil {
		return explain(err, s.timeout, false)
	}
	held, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	defer context.AfterFunc(lease.Ctx(), func() { cancel(fmt.Errorf("lease %016x was lost", grant.ID)) })()
	err = do(held, lease)
	if cause := context.Cause(held); cause != nil && s.ctx.Err() == nil {
		return cause
	}
	if ended := lease.Close(); ended != nil {
		return errors.Join(err, fmt.Errorf("revoke lease %016x, which ends by itself in %ds: %w", grant.ID, grant.TTL, ended))
	}
	return err
}

func (s *session) lock(held context.Context, m *concurrency.Mutex, command []string) error {
	if err := m.Lock(held); err != nil {
		return explain(err, s.timeout, false)
	}
	if len(command) > 0 {
		return s.run(held, command, "ETCD_LOCK_KEY="+m.Key(), fmt.Sprintf("ETCD_LOCK_REV=%d", m.Header().Revision))
	}
	if err := s.showKey(m.Key(), func(*clientv3.GetResponse) { s.line(m.Key()) }); err != nil {
		return err
	}
	<-held.Done()
	return nil
}

// showKey prints a key that this command has written.
func (s *session) showKey(key string, simple func(*clientv3.GetResponse)) error {
	resp, err := read(s, func(ctx context.Context) (*clientv3.GetResponse, error) { return s.Get(ctx, key) })
	if err != nil {
		return err
	}
	return s.print(answer{message: resp, simple: func() { simple(resp) }})
}
