package scenario

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
	"github.com/flotilla-kv/flotilla/benchmarks/peer"
)

// Config is common to all scenarios.
type Config struct {
	// Nodes is the number of server processes, Shards the number of ranges into which the keyspace
	// is evenly divided initially.
	Nodes, Shards int
	// Rate is the number of puts per second, where the scenario does not decide it.
	Rate int
	// Calm is how long the load runs before, between and after events.
	Calm time.Duration
	// Conns are connections, spread over the nodes.
	Conns      int
	Keys       int
	ValueBytes int
	Seed       uint64
	// Dir holds the data directories while they are needed.
	Dir string
	// Binary is the server; "" builds it.
	Binary string
	// Flags are additional flags of the server.
	Flags []string
	// CPUs are the CPUs that servers may use, in taskset's form; "" is all.
	CPUs string
	// Fsyncs slows the disk down.
	Fsyncs peer.SlowFsyncs
	Log    *slog.Logger
}

// calmMin is the minimum of a calm that can serve as a baseline.
const calmMin = time.Second

// Validate reports what cannot be run, and what to change.
func (c Config) Validate() error {
	if c.Nodes < 1 || c.Shards < 1 || c.Conns < 1 {
		return errors.New("nodes, shards and conns must be at least 1")
	}
	return nil
}

// requestTimeout ends a put that hangs; it has then failed. Many clients use this timeout.
const requestTimeout = 5 * time.Second

// stage is a running cluster and a load that can be put on it.
type stage struct {
	Config
	cluster *peer.Cluster
	// startup is how long it took from starting the processes until all shards were whole.
	startup time.Duration
	// admin is the Admin service; conns and env are for the load.
	admin admin
	conns []*clientv3.Client
	env   *load.Env
}

// play runs act on a new cluster, and removes that afterwards.
func (c Config) play(ctx context.Context, act func(ctx context.Context, s *stage) error) (err error) {
	if err := c.Validate(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(c.Dir, "scenario-")
	if err != nil {
		return fmt.Errorf("make a data directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary, err := peer.Flotilla{Path: c.Binary}.Binary(ctx)
	if err != nil {
		return err
	}
	c.Log.Info("start", "nodes", c.Nodes, "shards", c.Shards)
	began := time.Now()
	cluster, err := peer.Start(ctx, peer.Flotilla{Path: binary, Flags: c.Flags}, peer.Options{Nodes: c.Nodes, Dir: dir, Shards: c.Shards, CPUs: c.CPUs, Fsyncs: c.Fsyncs})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	s := &stage{Config: c, cluster: cluster}
	if err := s.connect(ctx, cluster.Endpoints()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, load.Disconnect(s.conns)) }()
	if err := s.admin.whole(ctx, c.Nodes); err != nil {
		return err
	}
	s.startup = time.Since(began)
	// All nodes are on one disk, which may be nearly full of something else: they would
	// take no replica, and give theirs away.
	if err := s.admin.set(ctx, "low-space", "0.01"); err != nil {
		return err
	}
	return act(ctx, s)
}

// connect opens connections to some of the nodes in place of those there are.
func (s *stage) connect(ctx context.Context, endpoints []string) error {
	conns, err := load.Connect(ctx, endpoints, s.Conns)
	if err != nil {
		return err
	}
	if err := load.Disconnect(s.conns); err != nil {
		return err
	}
	s.conns, s.admin = conns, newAdmin(conns[0])
	s.env, err = load.NewEnv(conns, load.Sizes{
		Keys: s.Keys, ValueBytes: s.ValueBytes, WatchRate: 1, IdleWatchers: 1, CatchUp: 1, Leases: 1,
	}, s.Seed)
	return err
}

// rest lets the load run.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
