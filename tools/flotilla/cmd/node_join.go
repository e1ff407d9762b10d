package cmd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

func newNodeJoin(client *clientFlags) *cobra.Command {
	var wait bool
	c := &cobra.Command{
		Use:     "join [NAME]",
		Example: `  flotilla node join n4`,
		Short:   "Say how a node joins the cluster, and with --wait, wait until it has",
		Long: `Say how a node joins the cluster: by being started. The command that is printed has the
peer addresses of the nodes there are; fill in what stands in capitals. With --wait
the command returns when the node of that name is part of the cluster and was heard
of; the balancer then gives it its share by itself.

Exit codes: 0 done, 1 there is such a node already, 2 no node answered.`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 1 || wait && len(args) == 0 {
				return misused("%d arguments: want the name of the node that joins", len(args))
			}
			name := "NAME"
			if len(args) > 0 {
				name = args[0]
			}
			return client.connected(c, lines(), func(s *session) error { return s.join(name, wait) })
		},
	}
	c.Flags().BoolVar(&wait, "wait", false, "return when the node has joined; tells on stderr how far it is")
	return c
}

func (s *session) join(name string, wait bool) error {
	reply, err := s.nodes()
	if err != nil {
		return err
	}
	isIt := func(n *adminpb.Node) bool { return n.Name == name }
	if slices.ContainsFunc(reply.Nodes, isIt) {
		return fmt.Errorf("there is a node %s already; every node has a name of its own, for ever", name)
	}
	var peers []string
	for _, n := range reply.Nodes {
		peers = append(peers, n.PeerAddr)
	}
	how := fmt.Sprintf("flotilla start --name %s --data-dir DIR --client-addr HOST:PORT --peer-addr HOST:PORT --join %s", name, strings.Join(peers, ","))
	if err := s.print(answer{message: map[string]string{"command": how}, simple: func() { s.line(how) }}); err != nil || !wait {
		return err
	}
	return s.until(func() (stage, error) {
		reply, err := s.nodes()
		if err != nil {
			return stage{}, err
		}
		i := slices.IndexFunc(reply.Nodes, isIt)
		switch {
		case i < 0:
			return stage{state: fmt.Sprintf("waiting for %s to be started", name)}, nil
		case reply.Nodes[i].HeardMillis < 0:
			return stage{state: name + " was admitted, and has not told of itself yet"}, nil
		}
		return stage{done: true, state: name + " has joined"}, nil
	})
}

func newNodeRemove(client *clientFlags) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:     "remove NODE",
		Example: `  flotilla node remove n4`,
		Short:   "Take a node that was decommissioned and holds nothing out of the cluster for good",
		Long: `Take a node that was decommissioned and holds nothing any more out of the cluster for
good. If it still runs, it stops. Its name and its addresses are free for another node,
its data directory is not: only an empty one can join.` + doneCodes,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return misused("%d arguments: want the name of a node", len(args))
			}
			return client.connected(c, lines(), func(s *session) error {
				return s.done(unless(dryRun, args[0]+" is removed"), func(ctx context.Context) (*adminpb.DoneReply, error) {
					return s.admin().RemoveNode(ctx, &adminpb.RemoveNodeRequest{Node: args[0], DryRun: dryRun})
				})
			})
		},
	}
	registerDryRun(c, &dryRun)
	return c
}
