package cmd

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// nodeState is a command that says what may be placed on a node.
type nodeState struct {
	use, short, long string
	state            placement.NodeState
	// left is what --wait waits to become nothing.
	left func(*adminpb.Node) (count uint32, of string)
}

func newNodeStates(client *clientFlags) []*cobra.Command {
	leaders := func(n *adminpb.Node) (uint32, string) { return n.Leaders, "leads" }
	replicas := func(n *adminpb.Node) (uint32, string) { return n.Replicas, "holds" }
	return []*cobra.Command{
		nodeState{"drain", "Take the leaders off a node, for example before it is restarted",
			"Take the leaders off a node, for example before it is restarted. Its replicas stay.", placement.Draining, leaders}.command(client),
		nodeState{"decommission", "Take leaders and replicas off a node, so that it can be switched off for good",
			"Take leaders and replicas off a node, so that it can be switched off for good.", placement.Decommissioning, replicas}.command(client),
		nodeState{"undrain", "Give a node its share again, also after decommission",
			"Give a node its share again, also after decommission.", placement.Active, nil}.command(client),
	}
}

func (n nodeState) command(client *clientFlags) *cobra.Command {
	var flags changeFlags
	c := &cobra.Command{
		Use:   n.use + " NODE",
		Short: n.short,
		Long:  n.long + " The balancer does it: it must be on." + changeCodes,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%d arguments: want the name of a node", len(args))
			}
			req := &adminpb.SetNodeStateRequest{Node: args[0], State: n.state.String(), DryRun: flags.dryRun}
			return client.connected(c, lines(), func(s *session) error {
				said := flags.text(fmt.Sprintf("make %s %s", req.Node, req.State))
				if err := s.done(said, func(ctx context.Context) (*adminpb.DoneReply, error) { return s.admin().SetNodeState(ctx, req) }); err != nil || !flags.wait || n.left == nil {
					return err
				}
				return s.until(func() (stage, error) { return s.isEmpty(req, n) })
			})
		},
	}
	flags.register(c)
	return c
}

// isEmpty is how much the node has left that it should lose.
func (s *session) isEmpty(req *adminpb.SetNodeStateRequest, state nodeState) (stage, error) {
	reply, err := s.nodes()
	if err != nil {
		return stage{}, err
	}
	i := slices.IndexFunc(reply.Nodes, func(n *adminpb.Node) bool { return n.Name == req.Node })
	if i < 0 || reply.Nodes[i].State != req.State {
		return stage{state: fmt.Sprintf("%s is not %s yet", req.Node, req.State)}, nil // to the node that answers
	}
	count, of := state.left(reply.Nodes[i])
	return stage{done: count == 0, state: fmt.Sprintf("%s %s %d shards", req.Node, of, count), left: int64(count)}, nil
}
