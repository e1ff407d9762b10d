package node

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/flotilla-kv/flotilla/internal/certfiles"
	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/etcdapi"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/router/watchmerge"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// Config configures a node. Zero fields have their defaults.
type Config struct {
	// Name is the node's name, unique in the cluster. It never changes.
	Name string
	// Version is the version of the software, which the node tells the cluster.
	Version string
	// DataDir holds everything the node must not lose. It belongs to one node.
	DataDir string
	// ClientAddr is the address for etcd clients (host:port): gRPC and HTTP on one port.
	ClientAddr string
	// AdvertiseClientURLs is what MemberList tells clients to connect to. Default:
	// http://ClientAddr, or https with ClientTLS.
	AdvertiseClientURLs []string
	// PeerAddr is the address for other nodes (host:port). It is recorded in the cluster and never
	// changes.
	PeerAddr string
	// AdminAddr, when set, serves metrics, health and profiles on a separate port.
	AdminAddr string
	// Join are peer addresses of the cluster. At the first start of a cluster all founders are
	// given the same list of all founders.
	Join []string
	// BootstrapExpect is the number of founders, len(Join). Only nodes that are in
	// Join found a cluster; 0 means: join a running one.
	BootstrapExpect int
	// InitialSplits divides the keyspace of a new cluster: "uniform:N" or keys separated by commas.
	// Default: one shard. It has no effect afterwards.
	InitialSplits string
	// ReplicationFactor of a new cluster's shards. Default 3; while there are fewer nodes, each
	// shard has a replica on every node.
	ReplicationFactor int
	// MaxClockOffset is how far this node's clock may be from the majority's before
	// it stops proposing. Default 500 ms.
	MaxClockOffset time.Duration
	// MinFreeDisk is the free space below which puts are refused with NOSPACE.
	// Default 512 MiB. Below it there is still room for deletes and compaction.
	MinFreeDisk int64
	// HistoryRetention is how long superseded versions can be read and watched; older
	// ones are compacted from time to time. Default 0: only Compact does that. The longer,
	// the more space keys take that are overwritten often.
	HistoryRetention time.Duration
	// MemoryBytes is about how much memory the node should take. Its caches and its bounds on accepted requests are
	// parts of it. Default: half of the machine's memory, or three quarters of what the process may use; at most 1
	// GiB.
	MemoryBytes int64
	// CacheBytes is the store's block cache, including memtables. Default: a quarter of MemoryBytes.
	CacheBytes int64
	// TickInterval is the unit of Raft's timers. Default 400 ms, at most 500 ms: a dead leader is
	// replaced after 1 to 2 s. The longer it is, the less idle shards cost.
	TickInterval time.Duration
	// RaftLogEntries is about how many applied entries a shard's log keeps at most. Default 4,000.
	RaftLogEntries uint64
	// RaftLogBytes is about how many bytes of applied entries a shard's log keeps at most. Default 256 MiB, 16 MiB at
	// least.
	RaftLogBytes int64
	// SnapshotRate bounds the bytes per second of snapshots that the node sends to replicas that
	// are new or were away for long. Default 64 MiB.
	SnapshotRate int64
	// AuthToken is how tokens are made, as etcd's flag of this name: "simple", or "jwt,sign-method=RS256,pub-key=FILE,
	// priv-key=FILE,ttl=5m". All nodes need the same kind and keys; without priv-key, this one makes no tokens. The files
	// are read when the node starts. Default: simple.
	AuthToken string
	// BcryptCost is bcrypt's cost for new passwords. Default 10.
	BcryptCost int
	// WatchProgressInterval is how often a watch with progress notifications, and without events,
	// gets one. Default 10 min.
	WatchProgressInterval time.Duration
	// CORS are the origins whose pages browsers allow to read responses. HostWhitelist are the host names that HTTP
	// requests may use for the node. Default: all, and "*" also means all.
	CORS, HostWhitelist []string
	// DashboardKeys shows keys and values on the dashboard, to everybody who may see it. It answers only to the hosts of
	// ClientAddr, AdvertiseClientURLs and HostWhitelist, to addresses and to localhost.
	DashboardKeys bool
	// CorruptCheckTime is how often the replicas of each shard are compared, in addition to after
	// changes of its replicas or keys. 0 is only on request.
	CorruptCheckTime time.Duration
	// ClientTLS are the certificate that clients are shown, on AdminAddr too, and the authorities of the certificates
	// that they must have. Default: no TLS. Without authorities, clients need no certificate. The files may be replaced
	// while the node runs.
	ClientTLS certfiles.Files
	// ClientCertAuth says that clients must have certificates. ClientTLS.CA alone says it too.
	ClientCertAuth bool
	// PeerTLS are the certificate that nodes show each other, and the authorities that it is from. Default: no TLS. All
	// nodes of a cluster have it or none. It must be good for servers and for clients.
	PeerTLS certfiles.Files
	// Insecure allows addresses other than loopback without TLS.
	Insecure bool

	// ManualPlacement keeps this node from carrying out plans automatically, regardless of the
	// setting rebalance. Manual requests are carried out.
	ManualPlacement bool

	// The following fields are the node's environment; tests replace it.

	Logger     *slog.Logger
	Registerer *prometheus.Registry
	Clock      clock.Clock
	FS         vfs.FS
	// ProposalTimeout is how long a write may have no outcome before that is reported as unknown.
	// Default 5 s.
	ProposalTimeout time.Duration
	Dial            func(ctx context.Context, addr string) (net.Conn, error)
	Knobs           Knobs
}

// Knobs break invariants on purpose, so that tests can show that the checkers detect it.
type Knobs struct {
	Replica replica.Knobs
	Router  router.Knobs
	Apply   apply.Knobs
	Watch   watchmerge.Knobs
	// Operator is called before each step that this node takes of an operator, with the names of
	// the node and the step. Its error ends the attempt, as a crash there would.
	Operator func(ctx context.Context, node, step string) error
	// Planned is called between a plan and its first step, with the node's name.
	Planned func(ctx context.Context, node string)
	// AllControl makes every node work on operators as if it led the meta group.
	AllControl bool
	// StaleRoutes breaks nothing: the router learns where shards are by lookups and from refusals,
	// but not from changes of the table.
	StaleRoutes bool
}

func (c Config) withDefaults() Config {
	if len(c.AdvertiseClientURLs) == 0 && c.ClientAddr != "" {
		scheme := "http://"
		if c.ClientTLS.Cert != "" {
			scheme = "https://"
		}
		c.AdvertiseClientURLs = []string{scheme + c.ClientAddr}
	}
	if len(c.Join) == 0 {
		c.Join = []string{c.PeerAddr}
		c.BootstrapExpect = max(c.BootstrapExpect, 1)
	}
	c.Join = slices.SortedFunc(slices.Values(c.Join), compareAddrs)
	if c.ReplicationFactor == 0 {
		c.ReplicationFactor = 3
	}
	if c.MaxClockOffset == 0 {
		c.MaxClockOffset = 500 * time.Millisecond
	}
	if c.MinFreeDisk == 0 {
		c.MinFreeDisk = 512 << 20
	}
	if c.MemoryBytes == 0 {
		c.MemoryBytes = defaultMemory(machineMemory(os.DirFS("/")))
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = share(c.MemoryBytes).cache
	}
	if c.TickInterval == 0 {
		c.TickInterval = 400 * time.Millisecond
	}
	if c.RaftLogEntries == 0 {
		c.RaftLogEntries = 4_000
	}
	if c.RaftLogBytes == 0 {
		c.RaftLogBytes = 256 << 20
	}
	if c.ProposalTimeout == 0 {
		c.ProposalTimeout = 5 * time.Second
	}
	if c.SnapshotRate == 0 {
		c.SnapshotRate = 64 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Clock == nil {
		c.Clock = clock.System{}
	}
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
	}
	return c
}

// compareAddrs orders peer addresses by host, then by port as a number. Founders get their node IDs
// in this order, and users expect :4380 before :24380.
func compareAddrs(a, b string) int {
	hostA, portA, _ := net.SplitHostPort(a)
	hostB, portB, _ := net.SplitHostPort(b)
	numberA, errA := strconv.Atoi(portA)
	numberB, errB := strconv.Atoi(portB)
	if c := strings.Compare(hostA, hostB); c != 0 {
		return c
	}
	if c := cmp.Compare(numberA, numberB); c != 0 && errA == nil && errB == nil {
		return c
	}
	return strings.Compare(a, b) // Validate reports malformed addresses
}

// Validate reports what is wrong and how to fix it.
func (c Config) Validate() error {
	var missing []string
	for _, f := range []struct{ value, example string }{
		{c.Name, "--name n1"}, {c.DataDir, "--data-dir DIR"}, {c.ClientAddr, "--client-addr 127.0.0.1:2379"}, {c.PeerAddr, "--peer-addr 127.0.0.1:2380"},
	} {
		if f.value == "" {
			missing = append(missing, f.example)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the node also needs, for example: %s", strings.Join(missing, " "))
	}
	if err := c.validateTLS(); err != nil {
		return err
	}
	if err := c.validateAddrs(); err != nil {
		return err
	}
	if c.TickInterval < 0 || c.TickInterval > tickMax {
		return fmt.Errorf("--tick-interval %s: want up to %s", c.TickInterval, tickMax)
	}
	if c.MemoryBytes != 0 && c.MemoryBytes < memoryMin {
		return fmt.Errorf("--memory %d: want %d (256 MiB) at least, or leave it out", c.MemoryBytes, memoryMin)
	}
	if c.MaxClockOffset < 0 {
		return fmt.Errorf("--max-clock-offset %s: want a time above 0", c.MaxClockOffset)
	}
	if c.MinFreeDisk < 0 {
		return fmt.Errorf("--min-free-disk %d: want bytes above 0", c.MinFreeDisk)
	}
	if c.CacheBytes < 0 {
		return fmt.Errorf("--cache-bytes %d: want bytes above 0", c.CacheBytes)
	}
	if c.ReplicationFactor != 0 {
		if err := placement.CheckReplicationFactor(c.ReplicationFactor); err != nil {
			return fmt.Errorf("--replication-factor: %w", err)
		}
	}
	if c.RaftLogBytes != 0 && c.RaftLogBytes < raftLogBytesMin {
		return fmt.Errorf("--raft-log-bytes %d: want %d (16 MiB) at least, or leave it out", c.RaftLogBytes, raftLogBytesMin)
	}
	if c.SnapshotRate < 0 {
		return fmt.Errorf("--snapshot-rate %d: want bytes a second above 0", c.SnapshotRate)
	}
	if c.WatchProgressInterval < 0 {
		return fmt.Errorf("--watch-progress-interval %s: want a time above 0", c.WatchProgressInterval)
	}
	join := c.withDefaults().Join
	if len(slices.Compact(slices.Clone(join))) != len(join) {
		return fmt.Errorf("--join names an address twice: %v", join)
	}
	if c.BootstrapExpect != 0 && c.BootstrapExpect != len(join) {
		return fmt.Errorf("--bootstrap-expect is %d but --join names %d nodes; founders are started with the same --join list of all of them", c.BootstrapExpect, len(join))
	}
	if c.BootstrapExpect != 0 && !slices.Contains(join, c.PeerAddr) {
		return fmt.Errorf("--join %v lacks this node's own --peer-addr %s; founders list each other and themselves (leave out --bootstrap-expect to join a running cluster)", join, c.PeerAddr)
	}
	if c.HistoryRetention < 0 {
		return fmt.Errorf("--history-retention %s: want how long history is kept, 1h for example, or 0 for as long as nobody compacts it", c.HistoryRetention)
	}
	if c.CorruptCheckTime < 0 {
		return fmt.Errorf("--corrupt-check-time %s: want how often the replicas of each shard are compared, 12h for example, or 0 for only when somebody asks or a read finds damage", c.CorruptCheckTime)
	}
	if c.InitialSplits != "" {
		if _, err := placement.ParseSplits(c.InitialSplits); err != nil {
			return fmt.Errorf("--initial-splits: %w", err)
		}
	}
	return nil
}

func (c Config) validateAddrs() error {
	for _, a := range []struct {
		flag, addr string
		tls        certfiles.Files
		how        string
	}{
		{"--client-addr", c.ClientAddr, c.ClientTLS, "--cert-file and --key-file"},
		{"--peer-addr", c.PeerAddr, c.PeerTLS, "--peer-cert-file, --peer-key-file and --peer-trusted-ca-file"},
		{"--admin-addr", c.AdminAddr, c.ClientTLS, "--cert-file and --key-file"},
	} {
		if a.addr == "" {
			continue
		}
		host, _, err := net.SplitHostPort(a.addr)
		if err != nil {
			return fmt.Errorf("%s %q: want host:port, without http://: %w", a.flag, a.addr, err)
		}
		if ip := net.ParseIP(host); !c.Insecure && a.tls.Cert == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("%s %s is not a loopback address and would be served without TLS; give %s, or --insecure to accept that", a.flag, a.addr, a.how)
		}
	}
	if everywhere(c.PeerAddr) {
		return fmt.Errorf("--peer-addr %s is no address that other nodes could connect to; give the one by which they reach this machine", c.PeerAddr)
	}
	if everywhere(c.ClientAddr) && len(c.AdvertiseClientURLs) == 0 {
		return fmt.Errorf("--client-addr %s is no address that clients could connect to; give the one by which they reach this machine, or say it with --advertise-client-urls", c.ClientAddr)
	}
	for _, addr := range c.Join {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("--join %q: want the peer addresses of nodes, host:port, separated by commas: %w", addr, err)
		}
	}
	for _, text := range c.AdvertiseClientURLs {
		if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("--advertise-client-urls %q: want URLs such as http://10.0.0.1:2379, separated by commas", text)
		}
	}
	return nil
}

// everywhere reports whether an address means all interfaces of a machine, so that nobody can
// connect to it.
func everywhere(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	return host == "" || net.ParseIP(host).IsUnspecified()
}

// electionTicks is the election timeout in ticks.
const electionTicks = 3

// tickMax bounds TickInterval: a group whose leader is gone is unavailable for several ticks.
const tickMax = 500 * time.Millisecond

// raftLogBytesMin bounds RaftLogBytes: a tenth of it has room for an entry of any size. With less, a busy shard would do
// nothing but cut its log, and every replica that is a moment behind would be sent the whole shard.
const raftLogBytesMin = 16 << 20

// requestBytesMax bounds a message on the peer port: a batch of the largest requests.
const requestBytesMax = 64 << 20

func (c Config) etcdapi(room *admission.Room, answers *admission.Answers) etcdapi.Config {
	return etcdapi.Config{
		Room: room, Answers: answers, Registerer: c.Registerer, Logger: c.Logger, Codec: peer.Codec(),
		Origins: c.CORS, Hosts: c.HostWhitelist,
		WatchProgressInterval: c.WatchProgressInterval, LeaderTimeout: 3 * electionTicks * c.TickInterval,
	}
}
