package cmd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/internal/timerslack"
	"github.com/flotilla-kv/flotilla/node"
)

func newStart(adjust func(*node.Config)) *cobra.Command {
	cfg := node.Config{}
	var logLevel, configFile string
	c := &cobra.Command{
		Use:   "start",
		Short: "Run a node",
		Long: `Run a node. Starting it again with the same flags is a restart: the data
directory knows what it belongs to.

Every flag can also be given as an environment variable (--data-dir is
FLOTILLA_DATA_DIR) or as a line of a YAML file (data-dir: DIR) named by
--config. A flag wins over the environment, which wins over the file. Sizes are
bytes, or have a unit: 512MiB, 2GiB.`,
		Example: `  # one node
  flotilla start --name n1 --data-dir ./n1 --client-addr 127.0.0.1:2379 --peer-addr 127.0.0.1:2380

  # one of three founders; start the others with the same --join and --bootstrap-expect
  flotilla start --name n1 --data-dir ./n1 --client-addr 127.0.0.1:2379 --peer-addr 127.0.0.1:2380 \
    --join 127.0.0.1:2380,127.0.0.1:22380,127.0.0.1:32380 --bootstrap-expect 3 --initial-splits uniform:8`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			slack := timerslack.Widen()
			if err := applySettings(c, configFile); err != nil {
				return err
			}
			log, err := newLogger(c.ErrOrStderr(), logLevel)
			if err != nil {
				return err
			}
			if slack != nil {
				log.Info("Go's monitor thread takes more of the processors than it has to", "error", slack)
			}
			cfg.Logger, cfg.Version = log, softwareVersion()
			cfg.Registerer = processRegistry()
			adjust(&cfg)
			return runNode(c.Context(), cfg, c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&cfg.Name, "name", "", "name of the node, unique in the cluster; it never changes")
	f.StringVar(&cfg.DataDir, "data-dir", "", "directory for the node's data")
	f.StringVar(&cfg.ClientAddr, "client-addr", "", "host:port for etcd clients (gRPC and HTTP)")
	f.StringSliceVar(&cfg.AdvertiseClientURLs, "advertise-client-urls", nil, "URLs that clients are told to connect to (default http://CLIENT-ADDR, or https)")
	f.StringVar(&cfg.PeerAddr, "peer-addr", "", "host:port for the other nodes; it never changes")
	f.StringVar(&cfg.AdminAddr, "admin-addr", "", "host:port for metrics, health and profiles (default: none)")
	f.StringSliceVar(&cfg.Join, "join", nil, "peer addresses of the cluster; founders list each other and themselves")
	f.IntVar(&cfg.BootstrapExpect, "bootstrap-expect", 0, "number of founders; 0 joins a running cluster")
	f.StringVar(&cfg.InitialSplits, "initial-splits", "", "cut a new cluster's keyspace: uniform:N, or keys separated by commas")
	f.IntVar(&cfg.ReplicationFactor, "replication-factor", 3, "replicas of each shard of a new cluster")
	f.DurationVar(&cfg.MaxClockOffset, "max-clock-offset", 0, "how far the clock may be from the majority's before the node stops proposing (default 500ms)")
	f.Var((*sizeFlag)(&cfg.MinFreeDisk), "min-free-disk", "free disk below which puts are refused (default 512MiB)")
	f.DurationVar(&cfg.HistoryRetention, "history-retention", defaultHistoryRetention, "how long superseded versions can be read and watched; 0 keeps them until somebody compacts")
	f.DurationVar(&cfg.CorruptCheckTime, "corrupt-check-time", defaultCorruptCheckTime, "how often the replicas of each shard are compared; 0 only when somebody asks or a read finds damage")
	f.Var((*sizeFlag)(&cfg.CacheBytes), "cache-bytes", "block cache of the store (default: a quarter of --memory)")
	f.Var((*sizeFlag)(&cfg.MemoryBytes), "memory", "memory that the node should take, about, 256MiB at least (default: an eighth of the machine's, or 1GiB if that is more, at most 8GiB; no more than half of the machine's, or three quarters of what its control group has)")
	f.DurationVar(&cfg.TickInterval, "tick-interval", 0, "unit of Raft's timers; an election takes 3 to 5 (default 400ms)")
	f.Uint64Var(&cfg.RaftLogEntries, "raft-log-entries", 0, "entries that each shard's log keeps, about, for replicas that were away; who needs older ones is sent the whole shard (default 4000)")
	f.Var((*sizeFlag)(&cfg.RaftLogBytes), "raft-log-bytes", "the same in bytes, if that comes first, 16MiB at least (default 256MiB)")
	f.Var((*sizeFlag)(&cfg.SnapshotRate), "snapshot-rate", "what the node sends a second of whole shards to replicas that are new or were away for long (default 64MiB)")
	f.DurationVar(&cfg.WatchProgressInterval, "watch-progress-interval", 0, "how often a watch that asks for progress and has no events is told (default 10m)")
	f.StringVar(&cfg.AuthToken, "auth-token", "simple", "how users' tokens are made, as in etcd: simple, or jwt,sign-method=RS256,pub-key=FILE,priv-key=FILE,ttl=5m; the same on all nodes")
	f.IntVar(&cfg.BcryptCost, "bcrypt-cost", 10, "bcrypt's cost for the hashes of new passwords, 4 to 31")
	f.StringSliceVar(&cfg.CORS, "cors", nil, "origins whose pages browsers let read answers over HTTP (default: all)")
	f.StringSliceVar(&cfg.HostWhitelist, "host-whitelist", nil, "host names by which HTTP requests may ask for the node (default: all)")
	f.BoolVar(&cfg.DashboardKeys, "dashboard-keys", false, "let the dashboard show keys and values, to everybody who can see it")
	f.StringVar(&cfg.ClientTLS.Cert, "cert-file", "", "PEM file with the certificate that clients are shown; it is read again when it changes, like the other files")
	f.StringVar(&cfg.ClientTLS.Key, "key-file", "", "PEM file with the private key of --cert-file")
	f.StringVar(&cfg.ClientTLS.CA, "trusted-ca-file", "", "PEM file with the authorities of clients' certificates; if given, clients need one")
	f.BoolVar(&cfg.ClientCertAuth, "client-cert-auth", false, "clients need a certificate from --trusted-ca-file, whose common name is their user if they send no token")
	f.StringVar(&cfg.PeerTLS.Cert, "peer-cert-file", "", "PEM file with the certificate that nodes show each other")
	f.StringVar(&cfg.PeerTLS.Key, "peer-key-file", "", "PEM file with the private key of --peer-cert-file")
	f.StringVar(&cfg.PeerTLS.CA, "peer-trusted-ca-file", "", "PEM file with the authorities of nodes' certificates")
	f.BoolVar(&cfg.Insecure, "insecure", false, "allow addresses other than loopback without TLS")
	f.StringVar(&logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&configFile, "config", "", "YAML file with the same names as the flags")
	return c
}

// defaultHistoryRetention is long enough for watchers to resume after a restart, and hardly
// noticeable for most store sizes.
const defaultHistoryRetention = time.Hour

// defaultCorruptCheckTime makes a node read all of its data twice a day.
const defaultCorruptCheckTime = 12 * time.Hour

// runNode starts a node, announces it, and runs it until ctx ends or it fails.
func runNode(ctx context.Context, cfg node.Config, stdout io.Writer) error {
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	defer keepMemory(ctx, n)()
	if err := n.Start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop while starting
		}
		return err
	}
	defer n.Close()
	debug.FreeOSMemory() // starting a thousand replicas leaves as much garbage as they are large
	fmt.Fprintf(stdout, "node %s is ready to serve client requests on %s\n", n.Name(), n.ClientAddr())
	select {
	case <-ctx.Done():
		n.StepDown(context.WithoutCancel(ctx))
		n.SendAway(context.WithoutCancel(ctx))
		return nil
	case <-n.Done():
		return n.Err()
	}
}

func newLogger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, misused("--log-level %q: want debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}

// processRegistry exports the process's own metrics besides the node's.
func processRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
