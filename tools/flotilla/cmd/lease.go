package cmd

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func newLease(client *clientFlags) *cobra.Command {
	c := &cobra.Command{Use: "lease", Short: "Grant, revoke, renew and look at leases"}
	c.AddCommand(newLeaseGrant(client), newLeaseRevoke(client), newLeaseTimeToLive(client), newLeaseList(client), newLeaseKeepAlive(client))
	return c
}

// parseLease parses a lease's ID as it is printed.
func parseLease(text string) (clientv3.LeaseID, error) {
	id, err := strconv.ParseInt(text, 16, 64)
	if err != nil {
		return 0, misused("lease %q: want its ID in hexadecimal, as flotilla lease list prints it", text)
	}
	return clientv3.LeaseID(id), nil
}

func newLeaseGrant(client *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "grant TTL",
		Example: `  flotilla lease grant 60`,
		Short:   "Make a lease of so many seconds",
		Args:    wantArgs(1, 1, "TTL, in seconds"),
		RunE: func(c *cobra.Command, args []string) error {
			ttl, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return misused("TTL %q: want a number of seconds", args[0])
			}
			return client.connected(c, lines(), func(s *session) error {
				resp, err := s.grant(ttl)
				if err != nil {
					return err
				}
				return s.print(answer{message: resp, simple: func() {
					s.linef("lease %016x granted with TTL(%ds)", resp.ID, resp.TTL)
				}})
			})
		},
	}
}

func (s *session) grant(ttl int64) (*clientv3.LeaseGrantResponse, error) {
	return write(s, func(ctx context.Context) (*clientv3.LeaseGrantResponse, error) { return s.Grant(ctx, ttl) })
}

func newLeaseRevoke(client *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke LEASE",
		Example: `  flotilla lease revoke 694d81417acd4754`,
		Short:   "End a lease and delete its keys",
		Args:    wantArgs(1, 1, "the ID of a LEASE, as flotilla lease list prints it"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseLease(args[0])
			if err != nil {
				return err
			}
			return client.connected(c, lines(), func(s *session) error {
				resp, err := write(s, func(ctx context.Context) (*clientv3.LeaseRevokeResponse, error) { return s.Revoke(ctx, id) })
				if err != nil {
					return err
				}
				return s.print(answer{message: resp, simple: func() { s.linef("lease %016x revoked", id) }})
			})
		},
	}
}

func newLeaseTimeToLive(client *clientFlags) *cobra.Command {
	var keys bool
	c := &cobra.Command{
		Use:     "timetolive LEASE",
		Example: `  flotilla lease timetolive 694d81417acd4754`,
		Short:   "Tell how long a lease has left",
		Args:    wantArgs(1, 1, "the ID of a LEASE, as flotilla lease list prints it"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseLease(args[0])
			if err != nil {
				return err
			}
			var opts []clientv3.LeaseOption
			if keys {
				opts = append(opts, clientv3.WithAttachedKeys())
			}
			return client.connected(c, lines(), func(s *session) error {
				resp, err := read(s, func(ctx context.Context) (*clientv3.LeaseTimeToLiveResponse, error) {
					return s.TimeToLive(ctx, id, opts...)
				})
				if err != nil {
					return err
				}
				return s.print(answer{message: resp, simple: func() { s.line(s.timeToLive(resp, keys)) }})
			})
		},
	}
	c.Flags().BoolVar(&keys, "keys", false, "also print its keys")
	return c
}

func (p printer) timeToLive(resp *clientv3.LeaseTimeToLiveResponse, keys bool) string {
	if resp.GrantedTTL == 0 {
		return fmt.Sprintf("lease %016x already expired", resp.ID)
	}
	text := fmt.Sprintf("lease %016x granted with TTL(%ds), remaining(%ds)", resp.ID, resp.GrantedTTL, resp.TTL)
	if keys {
		var names []string
		for _, k := range resp.Keys {
			names = append(names, p.bytes(k))
		}
		text += fmt.Sprintf(", attached keys([%s])", strings.Join(names, " "))
	}
	return text
}

func newLeaseList(client *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Example: `  flotilla lease list`,
		Short:   "List all leases",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return client.connected(c, linesOrTable(), func(s *session) error {
				resp, err := read(s, func(ctx context.Context) (*clientv3.LeaseLeasesResponse, error) { return s.Leases(ctx) })
				if err != nil {
					return err
				}
				return s.print(answer{
					message: resp,
					simple: func() {
						s.linef("found %d leases", len(resp.Leases))
						for _, l := range resp.Leases {
							s.line(leaseName(int64(l.ID)))
						}
					},
					table: func() table.Writer {
						t := newTable("lease")
						for _, l := range resp.Leases {
							t.AppendRow(table.Row{leaseName(int64(l.ID))})
						}
						return t
					},
				})
			})
		},
	}
}

func newLeaseKeepAlive(client *clientFlags) *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use:     "keep-alive LEASE",
		Example: `  flotilla lease keep-alive 694d81417acd4754`,
		Short:   "Renew a lease until interrupted",
		Args:    wantArgs(1, 1, "the ID of a LEASE, as flotilla lease list prints it"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseLease(args[0])
			if err != nil {
				return err
			}
			return client.connected(c, lines(), func(s *session) error {
				if once {
					return s.renew(id)
				}
				return s.keepAlive(id)
			})
		},
	}
	c.Flags().BoolVar(&once, "once", false, "renew it once and end")
	return c
}

func (s *session) renew(id clientv3.LeaseID) error {
	resp, err := read(s, func(ctx context.Context) (*clientv3.LeaseKeepAliveResponse, error) { return s.KeepAliveOnce(ctx, id) })
	if err != nil {
		return err
	}
	return s.print(s.keptAlive(resp))
}

func (s *session) keepAlive(id clientv3.LeaseID) error {
	renewals, err := s.KeepAlive(s.ctx, id)
	if err != nil {
		return explain(err, s.timeout, false)
	}
	for resp := range renewals {
		if err := s.print(s.keptAlive(resp)); err != nil {
			return err
		}
	}
	if s.ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("lease %016x expired or was revoked", id)
}

func (s *session) keptAlive(resp *clientv3.LeaseKeepAliveResponse) answer {
	return answer{message: resp, simple: func() { s.linef("lease %016x keepalived with TTL(%d)", resp.ID, resp.TTL) }}
}
