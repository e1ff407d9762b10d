package robustness

import (
	"context"
	"fmt"
	"strings"

	"github.com/flotilla-kv/flotilla/internal/proccluster"
)

// System is a running store that serves the etcd API and can be disturbed. Nodes are
// numbered from 0.
type System interface {
	// Endpoints has one client address for each node.
	Endpoints() []string
	// Kill ends the node without warning; Start starts it again on what it left behind.
	Kill(node int) error
	Start(node int) error
	// Pause freezes the node and Resume lets it go on.
	Pause(node int) error
	Resume(node int) error
	// WaitReady returns when all nodes serve.
	WaitReady(ctx context.Context) error
	// Reshape changes the shards while they serve, at key: whatever makes the map of
	// every router stale. A store without shards does nothing.
	Reshape(ctx context.Context, key string) error
	// Transfer makes the node the leader of what it can, without stopping anything.
	Transfer(ctx context.Context, node int) error
	// Crashes describes every time a node ended on its own.
	Crashes() []string
}

// ReshapeFunc splits the shard that holds key there, or moves it when it begins there,
// through any of the endpoints.
type ReshapeFunc func(ctx context.Context, endpoints []string, key string) error

// TransferFunc makes a node the leader, through any of the endpoints.
type TransferFunc func(ctx context.Context, endpoints []string, node int) error

// Processes is a System of operating-system processes.
type Processes struct {
	cluster  *proccluster.Cluster
	reshape  ReshapeFunc
	transfer TransferFunc
}

// NewProcesses makes a System of a started cluster. A nil reshape says that the store
// has no shards to change, a nil transfer that it takes no orders about leaders.
func NewProcesses(c *proccluster.Cluster, reshape ReshapeFunc, transfer TransferFunc) *Processes {
	return &Processes{cluster: c, reshape: reshape, transfer: transfer}
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

// Reshape implements System.
func (p *Processes) Reshape(ctx context.Context, key string) error {
	if p.reshape == nil {
		return nil
	}
	return p.reshape(ctx, p.Endpoints(), key)
}

// Transfer implements System.
func (p *Processes) Transfer(ctx context.Context, node int) error {
	if p.transfer == nil {
		return nil
	}
	return p.transfer(ctx, p.Endpoints(), node)
}

// Crashes implements System.
func (p *Processes) Crashes() []string { return p.cluster.Crashes() }

// FlotillaArgs are the arguments of a flotilla node in a cluster that begins with
// one shard for each ShardCount-th of the keyspace.
func FlotillaArgs(node proccluster.Spec, all []proccluster.Spec) []string {
	var join []string
	for _, n := range all {
		join = append(join, n.PeerAddr)
	}
	return []string{
		"start", "--name", node.Name, "--data-dir", node.DataDir,
		"--client-addr", node.ClientAddr, "--peer-addr", node.PeerAddr,
		"--join", strings.Join(join, ","), "--bootstrap-expect", fmt.Sprint(len(all)),
		"--initial-splits", fmt.Sprintf("uniform:%d", ShardCount),
	}
}
