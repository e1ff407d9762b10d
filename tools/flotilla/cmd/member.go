package cmd

import (
	"context"
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func newMember(client *clientFlags) *cobra.Command {
	c := &cobra.Command{Use: "member", Short: "Look at the nodes of the cluster"}
	c.AddCommand(newMemberList(client))
	return c
}

func newMemberList(client *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Example: `  flotilla member list`,
		Short:   "List the nodes",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return client.connected(c, tableOrLines(), func(s *session) error {
				resp, err := s.members()
				if err != nil {
					return err
				}
				return s.print(answer{
					message: resp,
					simple: func() {
						for _, m := range resp.Members {
							s.line(strings.Join(memberFields(m), ", "))
						}
					},
					table: func() table.Writer {
						t := newTable("id", "status", "name", "peer addrs", "client addrs", "is learner")
						for _, m := range resp.Members {
							t.AppendRow(newRow(memberFields(m)))
						}
						return t
					},
				})
			})
		},
	}
}

func (s *session) members() (*clientv3.MemberListResponse, error) {
	return read(s, func(ctx context.Context) (*clientv3.MemberListResponse, error) { return s.MemberList(ctx) })
}

func memberFields(m *pb.Member) []string {
	status := "started"
	if m.Name == "" {
		status = "unstarted"
	}
	return []string{
		fmt.Sprintf("%x", m.ID), status, m.Name, strings.Join(m.PeerURLs, ","), strings.Join(m.ClientURLs, ","), fmt.Sprint(m.IsLearner),
	}
}
