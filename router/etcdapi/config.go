package etcdapi

import (
	"log/slog"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/auth"
	"github.com/flotilla-kv/flotilla/txn"
)

// Config has etcd's limits. The zero value of a field means its default.
type Config struct {
	// MaxRequestBytes is the largest write, as it would be marshalled for the log.
	// Default 1.5 MiB. Larger: longer log entries, which delay everybody behind them.
	MaxRequestBytes int
	// WatchProgressInterval is how often a watch with progress notifications, and without events,
	// gets one. Default 10 min, at least 100 ms.
	WatchProgressInterval time.Duration
	// LeaderTimeout is how long the cluster may be without a leader before streams that require one
	// end. Default 3 s: three election timeouts.
	LeaderTimeout time.Duration
	// Codec marshals the messages of other services on the same gRPC server, because a server has
	// one codec for all. Default gRPC's own.
	Codec encoding.CodecV2

	// Origins are those whose pages browsers let read answers, "http://a:80" for example. Default: all,
	// as in etcd.
	Origins []string
	// Hosts are the names by which HTTP requests may ask for this server, without ports. Default: all, as in etcd.
	Hosts []string

	// Room admits requests. Default: unlimited.
	Room *admission.Room
	// Answers bounds the memory of answers. Default: unlimited.
	Answers *admission.Answers

	// AnswerDistance is the interval of the ticks at which responses to puts and transactions are
	// sent; 0: they are sent at once, which is the default.
	AnswerDistance func() time.Duration

	// Auth judges who may make a request. Default: everybody.
	Auth *auth.Guard
	// Users reads and changes users and roles. Default: there are none, and there can be none.
	Users Users
	// Passwords hashes and compares passwords. Required with Users.
	Passwords *auth.Passwords
	// SnapshotDir is an empty directory in which the files of snapshots are made; it need not exist. Default: a new one
	// for each snapshot, among the system's temporary files.
	SnapshotDir string
	// SnapshotRoom refuses to let snapshots take so many more bytes of the disk. Default: there is always room.
	SnapshotRoom func(bytes int64) error
	// SnapshotPatience is how long a client may receive nothing before its snapshot ends. Default 1 min.
	SnapshotPatience time.Duration

	// Registerer registers the metrics. Default: none are exported.
	Registerer prometheus.Registerer
	// Logger logs failed health checks, and snapshots. Default: nothing is logged.
	Logger *slog.Logger
}

const (
	// streamsMax is how many RPCs may be open on one connection: a client multiplexes thousands of
	// watches.
	streamsMax = math.MaxUint32
	// pingMinTime is how often a client may ping; a client that pings more often is disconnected.
	pingMinTime = 5 * time.Second
	// pingInterval is how long a connection may be silent before the server pings.
	pingInterval = 2 * time.Hour
	// pongTimeout is how long the response to that ping may take.
	pongTimeout = 20 * time.Second
	// messageOverheadBytes is by how much a gRPC message may exceed a request. A message between
	// both limits is refused with etcd's own error, not with gRPC's.
	messageOverheadBytes = 512 * 1024
)

func (c Config) withDefaults() Config {
	if c.Codec == nil {
		c.Codec = encoding.GetCodecV2(proto.Name)
	}
	if c.MaxRequestBytes == 0 {
		c.MaxRequestBytes = txn.DefaultMaxRequestBytes
	}
	if c.WatchProgressInterval == 0 {
		c.WatchProgressInterval = 10 * time.Minute
	}
	c.WatchProgressInterval = max(c.WatchProgressInterval, 100*time.Millisecond)
	if c.LeaderTimeout == 0 {
		c.LeaderTimeout = 3 * time.Second
	}
	if c.AnswerDistance == nil {
		c.AnswerDistance = func() time.Duration { return 0 }
	}
	if c.SnapshotRoom == nil {
		c.SnapshotRoom = func(int64) error { return nil }
	}
	if c.SnapshotPatience == 0 {
		c.SnapshotPatience = time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
