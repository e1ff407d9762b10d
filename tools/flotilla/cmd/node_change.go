package cmd

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// nodeState is a command that sets what may be placed on a node.
type nodeState struct {
	use, short, long string
	state            placement.NodeState
	// loses is what the node must no longer do for any shard before --wait returns.
	loses string
}

func newNodeStates(client *clientFlags) []*cobra.Command {
	return []*cobra.Command{
		nodeState{"drain", "Take the leaders off a node, for example before it is restarted",
			"Take the leaders off a node, for example before it is restarted. Its replicas stay.", placement.Draining, "leads"}.command(client),
		nodeState{"decommission", "Take leaders and replicas off a node, so that it can be switched off for good",
			"Take leaders and replicas off a node, so that it can be switched off for good.", placement.Decommissioning, "holds"}.command(client),
		nodeState{"undrain", "Give a node its share again, also after decommission",
			"Give a node its share again, also after decommission.", placement.Active, ""}.command(client),
	}
}

func (n nodeState) command(client *clientFlags) *cobra.Command {
	var flags changeFlags
	c := &cobra.Command{
		Use:     n.use + " NODE",
		Example: "  flotilla node " + n.use + " n4",
		Short:   n.short,
		Long: n.long + `
The balancer does it: it must be on. With --wait the command also waits until another
node leads the meta group, and when nothing changes for some seconds it says why.` + changeCodes,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return misused("%d arguments: want the name of a node", len(args))
			}
			req := &adminpb.SetNodeStateRequest{Node: args[0], State: n.state.String(), DryRun: flags.dryRun}
			return client.connected(c, lines(), func(s *session) error {
				said := flags.text(fmt.Sprintf("make %s %s", req.Node, req.State))
				if err := s.done(said, func(ctx context.Context) (*adminpb.DoneReply, error) { return s.admin().SetNodeState(ctx, req) }); err != nil || !flags.wait || n.loses == "" {
					return err
				}
				return s.until(func() (stage, error) { return s.isEmpty(req, n) })
			})
		},
	}
	flags.register(c)
	return c
}

// isEmpty returns what the node still has that it should lose.
func (s *session) isEmpty(req *adminpb.SetNodeStateRequest, state nodeState) (stage, error) {
	reply, err := s.nodes()
	if err != nil {
		return stage{}, err
	}
	i := slices.IndexFunc(reply.Nodes, func(n *adminpb.Node) bool { return n.Name == req.Node })
	if i < 0 || reply.Nodes[i].State != req.State || reply.Nodes[i].Emptying == nil {
		return stage{state: fmt.Sprintf("%s is not %s yet", req.Node, req.State)}, nil // to the node that answers
	}
	return state.stage(reply.Nodes[i]), nil
}

// stage returns the progress of a node in that state.
func (n nodeState) stage(node *adminpb.Node) stage {
	left := node.Emptying
	text := fmt.Sprintf("%s %s %s", node.Name, n.loses, counted(int(left.Shards), "shard"))
	switch left.MetaGroup {
	case "":
	case "leads":
		text += ", and leads the meta group"
	default:
		text += ", and who leads the meta group is not known"
	}
	return stage{done: left.Shards == 0 && left.MetaGroup == "", state: text, left: int64(left.Shards), waits: left.Waits}
}
