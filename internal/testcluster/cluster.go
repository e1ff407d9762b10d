package testcluster

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/flotilla-kv/flotilla/internal/ports"
	"github.com/flotilla-kv/flotilla/node"
)

// Options of a cluster. The zero value is three nodes and one shard.
type Options struct {
	// Nodes is the number of founders, called n1, n2, … Default 3.
	Nodes int
	// Splits cuts the keyspace, as node.Config.InitialSplits.
	Splits string
	// Tick is the unit of Raft's timers. Default 240 ms: elections take 0.7 to 1.4 s, and come by
	// themselves only on a machine that is far behind.
	Tick time.Duration
	// Balance lets the nodes move replicas and leaders, and split shards, by themselves. By
	// default a test decides where things are.
	Balance bool
	// FS is the file system of all nodes. Default: the machine's.
	FS vfs.FS
	// AuthToken is how tokens are made, as node.Config.AuthToken.
	AuthToken string
	// Edit changes the configuration of a node before its first start.
	Edit func(name string, cfg *node.Config)
}

// Cluster is a set of nodes that ends with the test.
type Cluster struct {
	tb      testing.TB
	opts    Options
	dir     string
	network *Network
	nodes   []*Node
}

// New prepares a cluster; nothing runs yet.
func New(tb testing.TB, o Options) *Cluster {
	tb.Helper()
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Tick == 0 {
		o.Tick = 240 * time.Millisecond
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	c := &Cluster{tb: tb, opts: o, dir: tb.TempDir(), network: newNetwork()}
	tb.Cleanup(c.close)
	for range o.Nodes {
		c.add()
	}
	for _, n := range c.nodes {
		n.cfg.Join, n.cfg.BootstrapExpect, n.cfg.InitialSplits = c.peerAddrs(), o.Nodes, o.Splits
		c.edit(n)
	}
	return c
}

// Start prepares a cluster and starts all nodes.
func Start(tb testing.TB, o Options) *Cluster {
	tb.Helper()
	c := New(tb, o)
	c.StartAll(tb)
	return c
}

// Add prepares one more node, which joins the cluster when it is started.
func (c *Cluster) Add() *Node {
	join := c.peerAddrs()
	n := c.add()
	n.cfg.Join = join
	c.edit(n)
	return n
}

func (c *Cluster) add() *Node {
	c.tb.Helper()
	n := &Node{Name: fmt.Sprintf("n%d", len(c.nodes)+1), Clock: &Clock{}, Disk: newDisk(c.opts.FS), log: &nodeLog{}}
	n.cfg = node.Config{
		Name: n.Name, DataDir: filepath.Join(c.dir, n.Name), ClientAddr: Lease(c.tb), PeerAddr: Lease(c.tb),
		CacheBytes: 8 << 20, TickInterval: c.opts.Tick, ManualPlacement: !c.opts.Balance, AuthToken: c.opts.AuthToken, Version: "v0.0.0",
		Logger: n.logger(), Clock: n.Clock, FS: n.Disk, Dial: n.dialer(c.network),
	}
	c.network.know(n.Name, n.cfg.PeerAddr)
	c.nodes = append(c.nodes, n)
	return n
}

func (c *Cluster) edit(n *Node) {
	if c.opts.Edit != nil {
		c.opts.Edit(n.Name, &n.cfg)
	}
}

func (c *Cluster) peerAddrs() []string {
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.cfg.PeerAddr)
	}
	return addrs
}

// Lease returns a loopback address that is the test's until it ends.
func Lease(tb testing.TB) string {
	tb.Helper()
	p, err := ports.Lease()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.Release(); err != nil {
			tb.Error(err)
		}
	})
	return p.Addr()
}

// StartAll starts all nodes that are down, together: none may be able to serve alone.
func (c *Cluster) StartAll(tb testing.TB) {
	tb.Helper()
	c.StartSome(tb, c.nodes...)
}

// StartSome starts those of the nodes that are down, together.
func (c *Cluster) StartSome(tb testing.TB, nodes ...*Node) {
	tb.Helper()
	var wg sync.WaitGroup
	for _, n := range nodes {
		if n.Inside() == nil {
			wg.Go(func() { n.start(tb) })
		}
	}
	wg.Wait()
	if tb.Failed() {
		tb.FailNow()
	}
}

// StopAll stops all nodes, one after the other.
func (c *Cluster) StopAll() {
	for _, n := range c.nodes {
		n.Stop()
	}
}

func (c *Cluster) close() {
	c.network.Heal() // nothing that stops should have to wait for a dead link
	c.StopAll()
	c.network.close()
	if !c.tb.Failed() {
		return
	}
	for _, n := range c.nodes {
		c.tb.Logf("%s (clients %s, peers %s) logged last:\n%s", n.Name, n.ClientAddr(), n.PeerAddr(), n.log.tail())
	}
}

// Nodes returns all nodes, in order.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Node returns the i-th node, counted from 1 as in the names.
func (c *Cluster) Node(i int) *Node { return c.nodes[i-1] }

// Network is what the nodes dial through.
func (c *Cluster) Network() *Network { return c.network }

// Endpoints returns the client addresses of all nodes, running or not.
func (c *Cluster) Endpoints() []string {
	var out []string
	for _, n := range c.nodes {
		out = append(out, n.ClientAddr())
	}
	return out
}

// Client returns etcd's own client, connected to the given nodes or to all, which is
// closed when the test ends.
func (c *Cluster) Client(tb testing.TB, nodes ...*Node) *clientv3.Client {
	tb.Helper()
	var endpoints []string
	for _, n := range nodes {
		endpoints = append(endpoints, n.ClientAddr())
	}
	if len(nodes) == 0 {
		endpoints = c.Endpoints()
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	if err != nil {
		tb.Fatalf("make a client of %v: %v", endpoints, err)
	}
	tb.Cleanup(func() { client.Close() })
	return client
}
