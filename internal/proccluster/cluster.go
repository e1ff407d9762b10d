package proccluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flotilla-kv/flotilla/internal/ports"
)

// Config says what cluster to run.
type Config struct {
	Program Program
	// Nodes is how many; they are called n1, n2, …
	Nodes int
	// Dir receives data and logs. Default: a temporary directory of the test.
	Dir string
	// Args makes the arguments of one node; all has every node, in order.
	Args func(node Spec, all []Spec) []string
	// ReadyLine is part of the line by which a node says that it serves.
	// Default ReadyLineDefault.
	ReadyLine string
}

// ReadyLineDefault is printed by flotilla, and by etcd.
const ReadyLineDefault = "ready to serve client requests"

// Cluster is a set of nodes that ends with the test.
type Cluster struct{ nodes []*Node }

// New prepares a cluster; nothing runs yet. When the test ends all nodes are killed,
// and what they printed last is shown if it failed.
func New(tb testing.TB, cfg Config) (*Cluster, error) {
	tb.Helper()
	if cfg.Dir == "" {
		cfg.Dir = tb.TempDir()
	}
	if cfg.ReadyLine == "" {
		cfg.ReadyLine = ReadyLineDefault
	}
	specs, err := newSpecs(tb, cfg)
	if err != nil {
		return nil, err
	}
	c, l := &Cluster{}, newLauncher()
	tb.Cleanup(l.close)
	for _, spec := range specs {
		out, err := newNodeOutput(tb, cfg, spec)
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, &Node{Spec: spec, program: cfg.Program, args: cfg.Args(spec, specs), out: out, launcher: l})
	}
	tb.Cleanup(func() { c.close(tb) }) // before the launcher's, the files' and the ports'
	return c, nil
}

func newSpecs(tb testing.TB, cfg Config) ([]Spec, error) {
	var specs []Spec
	for i := range cfg.Nodes {
		name := fmt.Sprintf("n%d", i+1)
		var addrs [3]string
		for j := range addrs {
			p, err := ports.Lease()
			if err != nil {
				return nil, err
			}
			tb.Cleanup(func() {
				if err := p.Release(); err != nil {
					tb.Error(err)
				}
			})
			addrs[j] = p.Addr()
		}
		specs = append(specs, Spec{
			Name: name, DataDir: filepath.Join(cfg.Dir, name), ClientAddr: addrs[0], PeerAddr: addrs[1], AdminAddr: addrs[2],
		})
	}
	return specs, nil
}

func newNodeOutput(tb testing.TB, cfg Config, spec Spec) (*output, error) {
	path := filepath.Join(cfg.Dir, spec.Name+".log")
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("create the log of %s: %w", spec.Name, err)
	}
	tb.Cleanup(func() {
		if err := file.Close(); err != nil {
			tb.Errorf("close the log of %s: %v", spec.Name, err)
		}
	})
	return newOutput(file, cfg.ReadyLine), nil
}

func (c *Cluster) close(tb testing.TB) {
	for _, n := range c.nodes {
		if err := n.Kill(); err != nil {
			tb.Error(err)
		}
	}
	if !tb.Failed() {
		return
	}
	for _, n := range c.nodes {
		tb.Logf("%s (%s) printed last:\n%s", n.Name, n.ClientAddr, strings.Join(n.Tail(), "\n"))
	}
}

// Nodes returns all nodes, in order.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Start starts all nodes and waits until each is ready. They start together, because
// none may be able to serve alone.
func (c *Cluster) Start(ctx context.Context) error {
	for _, n := range c.nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	return c.WaitReady(ctx)
}

// WaitReady returns when every node has printed its ready line.
func (c *Cluster) WaitReady(ctx context.Context) error {
	for _, n := range c.nodes {
		if err := n.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Endpoints returns the client addresses of all nodes, running or not.
func (c *Cluster) Endpoints() []string {
	var out []string
	for _, n := range c.nodes {
		out = append(out, n.ClientAddr)
	}
	return out
}

// Crashes describes every time a node ended without being told to.
func (c *Cluster) Crashes() []string {
	var out []string
	for _, n := range c.nodes {
		out = append(out, n.crashList()...)
	}
	return out
}
