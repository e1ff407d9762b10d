package robustness

import (
	"context"

	"github.com/flotilla-kv/flotilla/internal/proccluster"
)

// System is a running store that serves the etcd API and can be disturbed. Nodes are
// numbered from 0.
type System interface {
	// Endpoints has one client address for each node.
	Endpoints() []string
	// Kill ends the node without warning. Start starts it again with the data that it left.
	Kill(node int) error
	Start(node int) error
	// Pause freezes the node, and Resume lets it continue.
	Pause(node int) error
	Resume(node int) error
	// WaitReady returns when all nodes serve.
	WaitReady(ctx context.Context) error
	Layout
	// Crashes describes every time a node ended on its own.
	Crashes() []string
}

// Layout is which shards there are, on which nodes, and who leads them. A requested change may be refused, may take a
// while, or may have no effect.
type Layout interface {
	// Split splits the shard of key there: key and what follows become a shard of their own. It waits until that has
	// ended.
	Split(ctx context.Context, key string) error
	// Merge merges the shard of key with its left neighbour, or with the right one if there is no left one. It first
	// brings them together on the same nodes, and waits for everything.
	Merge(ctx context.Context, key string) error
	// Move moves a replica of the shard of key to the node, or to the next node that has none.
	Move(ctx context.Context, key string, node int) error
	// Transfer makes the node the leader of what it can lead, without stopping anything.
	Transfer(ctx context.Context, node int) error
	// Observe examines every map that nodes report, until the context ends.
	Observe(ctx context.Context) Observed
	// Settle waits until nothing is in progress any more. Its error says what has not ended, or what is wrong: shards
	// that overlap, replicas that differ.
	Settle(ctx context.Context) error
}

// Fixed is a Layout that never changes.
type Fixed struct{}

// Split implements Layout.
func (Fixed) Split(context.Context, string) error { return nil }

// Merge implements Layout.
func (Fixed) Merge(context.Context, string) error { return nil }

// Move implements Layout.
func (Fixed) Move(context.Context, string, int) error { return nil }

// Transfer implements Layout.
func (Fixed) Transfer(context.Context, int) error { return nil }

// Observe implements Layout: there is nothing to observe.
func (Fixed) Observe(ctx context.Context) Observed {
	<-ctx.Done()
	return Observed{}
}

// Settle implements Layout.
func (Fixed) Settle(context.Context) error { return nil }

// Processes is a System of operating-system processes.
type Processes struct {
	Layout
	cluster *proccluster.Cluster
}

// NewProcesses makes a System of a started cluster.
func NewProcesses(c *proccluster.Cluster, l Layout) *Processes {
	return &Processes{Layout: l, cluster: c}
}

// Endpoints implements System.
func (p *Processes) Endpoints() []string { return p.cluster.Endpoints() }

// Kill implements System.
func (p *Processes) Kill(node int) error { return p.cluster.Nodes()[node].Kill() }

// Start implements System.
func (p *Processes) Start(node int) error { return p.cluster.Nodes()[node].Start() }

// Pause implements System.
func (p *Processes) Pause(node int) error { return p.cluster.Nodes()[node].Pause() }

// Resume implements System.
func (p *Processes) Resume(node int) error { return p.cluster.Nodes()[node].Resume() }

// WaitReady implements System.
func (p *Processes) WaitReady(ctx context.Context) error { return p.cluster.WaitReady(ctx) }

// Crashes implements System.
func (p *Processes) Crashes() []string { return p.cluster.Crashes() }
