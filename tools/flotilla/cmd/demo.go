package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/node"
)

const (
	// demoNodes is the size of the demo cluster.
	demoNodes = 3
	// demoMemory is the memory budget of each node, on a machine that is also used for other
	// things.
	demoMemory = 256 << 20
	// demoPortSpread is the distance of the demo's highest port from the first.
	demoPortSpread = 30_001
	demoPortMax    = 1<<16 - 1 - demoPortSpread
)

func newDemo() *cobra.Command {
	var dataDir, splits, logLevel string
	var port int
	c := &cobra.Command{
		Use:     "demo",
		Example: `  flotilla demo`,
		Short:   "Run a three-node cluster on this machine",
		Long: `Run a three-node cluster in one process on loopback, ready for flotilla get,
etcdctl, curl and a browser: the dashboard also shows keys. Its data goes with it when
it ends, unless --data-dir is given.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if port < 1 || port > demoPortMax {
				return misused("--port %d: want 1 to %d; the other nodes' ports are up to %d higher", port, demoPortMax, demoPortSpread)
			}
			log, err := newLogger(c.ErrOrStderr(), logLevel)
			if err != nil {
				return err
			}
			if dataDir == "" {
				if dataDir, err = os.MkdirTemp("", "flotilla-demo-"); err != nil {
					return fmt.Errorf("make a folder for the demo: %w", err)
				}
				defer os.RemoveAll(dataDir)
			}
			configs := demoConfigs(dataDir, splits, port)
			for i := range configs {
				configs[i].Logger = log
			}
			return runDemo(c, configs, port)
		},
	}
	f := c.Flags()
	f.StringVar(&dataDir, "data-dir", "", "keep the data here (default: a temporary folder)")
	f.StringVar(&splits, "initial-splits", "uniform:4", "how a new cluster's keyspace is cut: uniform:N, or keys separated by commas")
	f.IntVar(&port, "port", 2379, "client port of the first node; its peer port is the next one, and the other nodes' are 20000 and 30000 higher")
	f.StringVar(&logLevel, "log-level", "warn", "debug, info, warn or error")
	return c
}

func demoConfigs(dataDir, splits string, port int) []node.Config {
	// etcd's own convention for several members on one machine: 2379, 22379, 32379.
	ports := []int{port, port + 20000, port + 30000}
	var join []string
	for _, p := range ports {
		join = append(join, fmt.Sprintf("127.0.0.1:%d", p+1))
	}
	var configs []node.Config
	for i, p := range ports {
		name := fmt.Sprintf("n%d", i+1)
		configs = append(configs, node.Config{
			Name: name, Version: softwareVersion(), DataDir: filepath.Join(dataDir, name),
			ClientAddr: fmt.Sprintf("127.0.0.1:%d", p), PeerAddr: join[i],
			Join: join, BootstrapExpect: demoNodes, InitialSplits: splits, DashboardKeys: true,
			MemoryBytes: demoMemory, HistoryRetention: defaultHistoryRetention, CorruptCheckTime: defaultCorruptCheckTime,
			// Each node tells of the whole process: etcdctl check datascale asks one node for its memory.
			Registerer: processRegistry(),
		})
	}
	return configs
}

func runDemo(c *cobra.Command, configs []node.Config, port int) error {
	nodes := make([]*node.Node, len(configs))
	for i, cfg := range configs {
		var err error
		if nodes[i], err = node.New(cfg); err != nil {
			return err
		}
	}
	defer keepMemory(c.Context(), nodes...)()
	ctx, cancel := context.WithCancelCause(c.Context())
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			err := n.Start(ctx)
			if errors.Is(err, syscall.EADDRINUSE) {
				err = fmt.Errorf("%w; all addresses of the demo follow from --port: try --port %d", err, otherPort(port))
			}
			if err != nil {
				cancel(fmt.Errorf("node %s: %w", n.Name(), err)) // the others wait for this one
			}
		})
	}
	wg.Wait()
	defer func() {
		for _, n := range nodes {
			n.Close()
		}
	}()
	if c.Context().Err() != nil {
		return nil
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	printDemo(c, nodes)
	select {
	case <-c.Context().Done():
		return nil
	case <-nodes[0].Done():
		return nodes[0].Err()
	case <-nodes[1].Done():
		return nodes[1].Err()
	case <-nodes[2].Done():
		return nodes[2].Err()
	}
}

// otherPort is one to try when something uses a port of the demo's.
func otherPort(port int) int {
	if port += 1000; port <= demoPortMax {
		return port
	}
	return 2379
}

func printDemo(c *cobra.Command, nodes []*node.Node) {
	var endpoints []string
	for _, n := range nodes {
		endpoints = append(endpoints, n.ClientAddr())
	}
	out := c.OutOrStdout()
	fmt.Fprintf(out, "Flotilla demo: %s, %s\n\n", counted(len(nodes), "node"), counted(len(nodes[0].Map().Shards()), "shard"))
	fmt.Fprintf(out, "  export ETCDCTL_ENDPOINTS=%s\n", strings.Join(endpoints, ","))
	fmt.Fprintf(out, "  flotilla put greeting hello    # or etcdctl\n")
	fmt.Fprintf(out, "  flotilla get greeting\n")
	fmt.Fprintf(out, "  curl http://%s/v3/kv/range -d '{\"key\":\"Z3JlZXRpbmc=\"}'\n\n", endpoints[0])
	fmt.Fprintf(out, "  dashboard: http://%s/\n\n", endpoints[0])
	fmt.Fprintln(out, "ready to serve client requests; stop with Ctrl-C")
}
