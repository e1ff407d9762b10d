package node_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// admin is the Admin service of one node.
func admin(t *testing.T, c *testcluster.Cluster, n *testcluster.Node) adminpb.AdminClient {
	t.Helper()
	return adminpb.NewAdminClient(c.Client(t, n).ActiveConnection())
}

// Every node tells the same of the cluster: what there is, who leads, how busy it is.
func TestWhatNodesTellOfTheCluster(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "g,n,t"})
	client := c.Client(t)
	for _, n := range c.Nodes() {
		api := admin(t, c, n)
		testcluster.Eventually(t, n.Name+" to tell of the load", func(ctx context.Context) error {
			for i := range 40 { // goes on while it is measured
				if _, err := client.Put(ctx, fmt.Sprintf("h%02d", i), "value"); err != nil {
					return err
				}
				if _, err := client.Get(ctx, fmt.Sprintf("h%02d", i)); err != nil {
					return err
				}
			}
			return tellsTheLoad(ctx, api, c)
		})
	}

	t.Run("a silent node is told by its age, and the others still answer", func(t *testing.T) {
		c.Node(3).Stop()
		api := admin(t, c, c.Node(1))
		testcluster.Eventually(t, "leaders elsewhere", func(ctx context.Context) error {
			reply, err := api.Shards(ctx, &adminpb.ShardsRequest{})
			if err != nil {
				return err
			}
			for _, d := range reply.Shards {
				if d.Leader != "n1" && d.Leader != "n2" {
					return fmt.Errorf("shard %d is led by %q", d.Id, d.Leader)
				}
			}
			return nil
		})
		first, err := api.Nodes(t.Context(), &adminpb.NodesRequest{})
		require.NoError(t, err)
		testcluster.Eventually(t, "the silence to grow", func(ctx context.Context) error {
			later, err := api.Nodes(ctx, &adminpb.NodesRequest{})
			if err != nil {
				return err
			}
			if silent := later.Nodes[2]; silent.HeardMillis <= first.Nodes[2].HeardMillis || silent.Leaders != 0 {
				return fmt.Errorf("it is told as %v", silent)
			}
			return nil
		})
	})
}

// tellsTheLoad is nil when what the node tells fits a cluster of four shards of which the
// one from g to n is busy.
func tellsTheLoad(ctx context.Context, api adminpb.AdminClient, c *testcluster.Cluster) error {
	nodes, err := api.Nodes(ctx, &adminpb.NodesRequest{})
	if err != nil {
		return err
	}
	leaders := 0
	for i, n := range nodes.Nodes {
		leaders += int(n.Leaders)
		switch {
		case n.Name != c.Node(i+1).Name || n.PeerAddr != c.Node(i+1).PeerAddr() || n.State != "active":
			return fmt.Errorf("node %d is told as %v", i+1, n)
		case n.HeardMillis < 0 || n.Replicas != 5 || // the meta group's too
			n.DiskTotal == 0 || n.DiskFree == 0 || n.DiskFree > n.DiskTotal || n.FsyncMicros == 0 || n.ClockDistrusted != "":
			return fmt.Errorf("of node %s is told %v", n.Name, n)
		}
	}
	shards, err := api.Shards(ctx, &adminpb.ShardsRequest{})
	if err != nil {
		return err
	}
	if len(nodes.Nodes) != 3 || leaders != 4 || len(shards.Shards) != 4 {
		return fmt.Errorf("it tells of %d nodes, %d leaders, %d shards", len(nodes.Nodes), leaders, len(shards.Shards))
	}
	for i, d := range shards.Shards {
		busy := string(d.Span.Start) == "g"
		switch {
		case d.Leader == "" || d.Term == 0 || d.HeardMillis < 0 || d.MeasuredMillis < 0 || len(d.Replicas) != 3 || d.Operator != nil:
			return fmt.Errorf("shard %d is told as %v", i, d)
		case busy != (d.Writes > 1) || busy != (d.Reads > 1) || busy != (d.WriteBytes > 5) || busy != (d.PeakWrites > 1):
			return fmt.Errorf("shard %d has %v writes/s, %v reads/s", i, d.Writes, d.Reads)
		case busy && (d.Balance == nil || d.Balance.Left < 0.3 || d.Balance.Left > 0.7):
			return fmt.Errorf("its writes divide at %v", d.Balance)
		}
		for _, r := range d.Replicas {
			if r.HeardMillis < 0 || r.Lag < 0 || r.Learner {
				return fmt.Errorf("of shard %d is told %v", i, r)
			}
		}
	}
	plan, err := api.Plan(ctx, &adminpb.PlanRequest{})
	if err != nil {
		return err
	}
	if len(plan.Steps) > 0 || len(plan.Reasons) == 0 {
		return fmt.Errorf("it would do %v", plan.Steps)
	}
	return nil
}

// A node whose clock is off is told with the reason, by the others too.
func TestAnUntrustedClockIsTold(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	c.Node(2).Clock.Set(time.Hour)
	api := admin(t, c, c.Node(1))
	testcluster.Eventually(t, "the clock to be told", func(ctx context.Context) error {
		reply, err := api.Nodes(ctx, &adminpb.NodesRequest{})
		if err != nil {
			return err
		}
		if reply.Nodes[1].ClockDistrusted == "" || reply.Nodes[0].ClockDistrusted != "" {
			return fmt.Errorf("the nodes are told as %v", reply.Nodes)
		}
		if off := time.Duration(reply.Nodes[1].ClockOffsetMicros) * time.Microsecond; off < 50*time.Minute || reply.Nodes[0].ClockOffsetMicros != 0 {
			return fmt.Errorf("the clock is off by an hour, and by %s as it is told", off)
		}
		return nil
	})
}
