package cmd

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func newElect(client *clientFlags) *cobra.Command {
	var listen bool
	c := &cobra.Command{
		Use:   "elect NAME [PROPOSAL]",
		Short: "Become the leader of an election, or see who is",
		Long: `Wait to become the leader of an election, with a proposal that the others see, and
stay it until interrupted. With --listen, print every leader's proposal.`,
		Example: `  flotilla elect primary $(hostname)
  flotilla elect --listen primary`,
		Args: wantArgs(1, 2, "NAME PROPOSAL, or --listen NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if listen == (len(args) == 2) {
				return misused("want NAME PROPOSAL, or --listen NAME")
			}
			return client.connected(c, lines(), func(s *session) error {
				return s.lease(lockTTL, func(held context.Context, lease *concurrency.Session) error {
					e := concurrency.NewElection(lease, args[0])
					if listen {
						return s.observe(held, e)
					}
					return s.campaign(held, e, args[1])
				})
			})
		},
	}
	c.Flags().BoolVarP(&listen, "listen", "l", false, "only watch the election")
	return c
}

// campaign leads until held ends. Revoking the lease ends the leadership.
func (s *session) campaign(held context.Context, e *concurrency.Election, proposal string) error {
	if err := e.Campaign(held, proposal); err != nil {
		return explain(err, s.timeout, false)
	}
	if err := s.showKey(e.Key(), func(resp *clientv3.GetResponse) { s.rangeAnswer(resp, false, false).simple() }); err != nil {
		return err
	}
	<-held.Done()
	return nil
}

func (s *session) observe(held context.Context, e *concurrency.Election) error {
	for resp := range e.Observe(held) {
		if err := s.print(s.rangeAnswer(resp, false, false)); err != nil {
			return err
		}
	}
	if held.Err() == nil {
		return errors.New("the election can no longer be watched")
	}
	return nil
}
