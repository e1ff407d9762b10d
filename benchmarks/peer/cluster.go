package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// readyTimeout bounds how long a cluster may take to elect and serve, with thousands of
// shards too.
const readyTimeout = 2 * time.Minute

// Cluster is a running system.
type Cluster struct {
	kind      Kind
	binary    string
	plan      plan
	processes []*process
}

// Start builds the kind if need be, starts its nodes and waits until all serve.
func Start(ctx context.Context, kind Kind, o Options) (*Cluster, error) {
	binary, err := kind.Binary(ctx)
	if err != nil {
		return nil, err
	}
	p := plan{Options: o}
	addresses, err := freeAddresses(2 * o.Nodes)
	if err != nil {
		return nil, err
	}
	p.client, p.peer = addresses[:o.Nodes], addresses[o.Nodes:]
	for i := range o.Nodes {
		dir := filepath.Join(o.Dir, nodeName(i))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("start %s: %w", kind.Name(), err)
		}
		p.dirs = append(p.dirs, dir)
	}
	c := &Cluster{kind: kind, binary: binary, plan: p}
	if err := c.run(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// run starts a process for every node and waits until all serve.
func (c *Cluster) run(ctx context.Context) error {
	c.processes = nil
	for i := range c.plan.Nodes {
		command := append([]string{c.binary}, c.kind.command(c.plan, i)...)
		if c.plan.CPUs != "" {
			command = append([]string{"taskset", "--cpu-list", c.plan.CPUs}, command...)
		}
		proc, err := startProcess(command[0], command[1:], c.plan.dirs[i]+".log", c.plan.Fsyncs)
		if err != nil {
			return err
		}
		c.processes = append(c.processes, proc)
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for i, proc := range c.processes {
		if err := ready(ctx, c.plan.client[i], proc); err != nil {
			return fmt.Errorf("%s node %s: %w; its log ends with:\n%s", c.kind.Name(), nodeName(i), err, proc.logTail())
		}
	}
	return nil
}

// Kill ends the process of a node with SIGKILL; it stays down.
func (c *Cluster) Kill(node int) error {
	if err := c.processes[node].kill(); err != nil {
		return fmt.Errorf("kill %s node %s: %w", c.kind.Name(), nodeName(node), err)
	}
	return nil
}

// Restart stops all nodes, starts them on the data they have, and waits until all serve.
func (c *Cluster) Restart(ctx context.Context) error {
	if err := c.Stop(); err != nil {
		return err
	}
	return c.run(ctx)
}

// Running is which nodes were not killed.
func (c *Cluster) Running() (nodes []int) {
	for i, p := range c.processes {
		if p.log != nil {
			nodes = append(nodes, i)
		}
	}
	return nodes
}

// Name is what the node is called.
func (c *Cluster) Name(node int) string { return nodeName(node) }

// Endpoints are the addresses that serve the etcd API, one a node.
func (c *Cluster) Endpoints() []string { return c.plan.client }

// Stop ends every process that Start started.
func (c *Cluster) Stop() error {
	var errs []error
	for _, p := range c.processes {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// Usage is what the operating system says the running processes have used so far.
func (c *Cluster) Usage() (Usage, error) {
	var sum Usage
	for _, i := range c.Running() {
		u, err := usageOf(c.processes[i].cmd.Process.Pid)
		if err != nil {
			return Usage{}, fmt.Errorf("usage of %s: %w", c.kind.Name(), err)
		}
		sum = sum.plus(u)
	}
	return sum, nil
}

// ready waits until a linearizable read through the node succeeds (P3).
func ready(ctx context.Context, endpoint string, p *process) error {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", endpoint, err)
	}
	defer func() { _ = conn.Close() }()
	kv := pb.NewKVClient(conn)
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := kv.Range(attempt, &pb.RangeRequest{Key: []byte("ready?")})
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return errors.New("it ended instead of serving")
		case <-ctx.Done():
			return fmt.Errorf("not ready in time: %w (last answer: %w)", ctx.Err(), err)
		case <-retry.C:
		}
	}
}

// freeAddresses returns loopback addresses nobody listens on now. Another process
// may take one before it is used; then Start fails and says so.
func freeAddresses(n int) ([]string, error) {
	addresses := make([]string, n)
	for i := range addresses {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		addresses[i] = l.Addr().String()
		defer func() { _ = l.Close() }() // all stay taken until the last is found
	}
	return addresses, nil
}
