package cmd

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

func newNode(client *clientFlags) *cobra.Command {
	c := &cobra.Command{Use: "node", Short: "Look at the nodes and how loaded they are, have them join, empty and remove them"}
	c.AddCommand(newNodeList(client))
	c.AddCommand(newNodeStates(client)...)
	c.AddCommand(newNodeJoin(client), newNodeRemove(client))
	return c
}

func newNodeList(client *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "ls",
		Example: `  flotilla node ls
  FLOTILLA_USER=root:secret flotilla node ls`,
		Aliases: []string{"list"},
		Short:   "List the nodes with their load, disk, clock, version and when they were heard of",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return client.connected(c, tableOrLines(), func(s *session) error {
				reply, err := s.nodes()
				if err != nil {
					return err
				}
				return s.print(answer{
					message: reply,
					simple: func() {
						for _, n := range reply.Nodes {
							s.line(strings.Join(nodeFields(n), ", "))
						}
					},
					table: func() table.Writer { return nodeTable(reply) },
				})
			})
		},
	}
}

// admin is the client of Flotilla's admin service, on the same connection.
func (s *session) admin() adminpb.AdminClient { return adminpb.NewAdminClient(s.ActiveConnection()) }

func (s *session) nodes() (*adminpb.NodesReply, error) {
	return read(s, func(ctx context.Context) (*adminpb.NodesReply, error) {
		return s.admin().Nodes(ctx, &adminpb.NodesRequest{})
	})
}

func nodeTable(reply *adminpb.NodesReply) table.Writer {
	t := newTable("name", "id", "state", "leads", "replicas", "writes/s", "disk free", "fsync", "clock", "heard", "version", "client addrs")
	for _, n := range reply.Nodes {
		t.AppendRow(newRow(nodeFields(n)))
	}
	return t
}

func nodeFields(n *adminpb.Node) []string {
	fields := []string{n.Name, fmt.Sprintf("%x", n.Id), n.State, fmt.Sprint(n.Leaders), fmt.Sprint(n.Replicas)}
	last := []string{cmp.Or(n.ServerVersion, unknown), strings.Join(n.ClientUrls, ",")}
	if n.HeardMillis < 0 {
		return append(append(fields, unknown, unknown, unknown, unknown, "never"), last...)
	}
	clock := "ok"
	if n.ClockDistrusted != "" {
		clock = n.ClockDistrusted
	}
	fields = append(fields, rateText(n.Writes), diskText(n), microsText(n.FsyncMicros), clock, ageText(n.HeardMillis))
	return append(fields, last...)
}

func diskText(n *adminpb.Node) string {
	if n.DiskTotal == 0 {
		return unknown
	}
	return fmt.Sprintf("%s (%d%%)", byteSize(n.DiskFree), n.DiskFree*100/n.DiskTotal)
}
