package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/flotilla-kv/flotilla/internal/portmux"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/router/watchmerge"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/hlc"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// Node is one Flotilla process. Create it with New, then Start, then Close.
type Node struct {
	cfg Config
	log *slog.Logger

	hlc      *hlc.Hybrid
	table    *table
	peers    *peers
	meta     *meta
	health   *health
	access   *access
	space    *space
	agent    *agent
	elect    *elections
	departed *departed
	control  *controller
	balance  *balancer
	loads    *loads
	heat     *heatRecord
	check    *checker
	pauses   pauses

	// admission holds the metrics of room, which admits clients' requests, and of the router's lanes.
	admission *admission.Metrics
	room      *admission.Room
	answers   *admission.Answers // to clients
	toNodes   *admission.Answers // to other nodes
	lanes     *admission.Lanes

	// Set by Start, in this order.
	clientTLS, peerTLS *secured
	lock               io.Closer
	identity           *Identity
	// remembered are the nodes of the cluster in this node's last run.
	remembered []Peer
	peerMux    *portmux.Mux
	peerGRPC   *rpcServer
	self       *Membership
	engine     *engine.Engine
	headers    *mvcc.HeaderBudget
	host       *replica.Host
	router     *router.Router
	merger     *watchmerge.Merger
	client     net.Listener
	started    atomic.Bool // everything above is set, and peers may call it
	leaving    atomic.Bool // the node is about to stop, and must not lead any more

	// ctx ends when the node stops. work holds the loops that end with ctx, servers those that end with their
	// listeners.
	ctx     context.Context
	cancel  context.CancelCauseFunc
	work    sync.WaitGroup
	servers sync.WaitGroup

	// cluster is the ID of the node's cluster, 0 until it belongs to one.
	cluster atomic.Uint64
	// founding is returned by Hello: set once the node belongs to a cluster.
	founding struct {
		sync.Mutex
		json []byte
	}
	// sendAway is set once the client port is open.
	sendAway func(ctx context.Context)
	closers  []func()
}

// New checks the configuration and wires everything that needs no I/O.
func New(cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	n := &Node{cfg: cfg, log: cfg.Logger.With("node", cfg.Name)}
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	n.hlc = hlc.NewHybrid(cfg.Clock)
	n.table = newTable()
	n.peers = newPeers(n.dialPeer, n.hlc, n.introduce())
	n.meta = &meta{node: n}
	n.health = newHealth(n)
	n.access = newAccess(n)
	n.space = &space{node: n}
	n.agent = newAgent(n)
	n.elect = newElections(n)
	n.departed = newDeparted(n)
	n.control = newController(n)
	n.balance = &balancer{node: n, metrics: newBalancerMetrics(cfg.Registerer)}
	n.pauses = newPauses(cfg.Registerer)
	n.loads = newLoads(n)
	n.heat = &heatRecord{node: n}
	n.check = newChecker(n)
	n.admission = admission.NewMetrics(cfg.Registerer)
	parts := share(cfg.MemoryBytes)
	n.headers = mvcc.NewHeaderBudget(parts.headers, ownHeaders, parts.packed)
	n.room = admission.NewRoom(n.admission, parts.room)
	n.answers = admission.NewAnswers(n.admission, parts.answers)
	n.toNodes = admission.NewAnswers(n.admission, parts.toNodes)
	n.lanes = admission.NewLanes(n.admission, n.room.Bounds())
	return n, nil
}

// Name returns the node's name.
func (n *Node) Name() string { return n.cfg.Name }

// ClientAddr returns the node's address for clients.
func (n *Node) ClientAddr() string { return n.cfg.ClientAddr }

// Map returns the node's copy of the placement table.
func (n *Node) Map() *placement.Map { return n.table.Map() }

// ID returns the node's ID in its cluster. It is known once the node has started.
func (n *Node) ID() shard.NodeID { return n.self.NodeID }

// Router returns the node's router.
func (n *Node) Router() *router.Router { return n.router }

// Host returns the host that runs the node's replicas.
func (n *Node) Host() *replica.Host { return n.host }

// Done is closed when the node stops, by Close or because it failed.
func (n *Node) Done() <-chan struct{} { return n.ctx.Done() }

// Err returns why the node stopped; nil after Close.
func (n *Node) Err() error {
	if err := context.Cause(n.ctx); err != errClosed {
		return err
	}
	return nil
}

var errClosed = fmt.Errorf("node is closed")

// fail stops the node for a reason that it cannot repair.
func (n *Node) fail(err error) {
	n.log.Error("node stops", "error", err)
	n.cancel(err)
}

// onClose registers what Close must undo, newest first.
func (n *Node) onClose(f func()) { n.closers = append(n.closers, f) }

// Close stops the node in the reverse order of Start and waits for it.
func (n *Node) Close() {
	n.cancel(errClosed)
	n.work.Wait()
	for i := len(n.closers) - 1; i >= 0; i-- {
		n.closers[i]()
	}
	n.closers = nil
}

func (n *Node) setFounding(f Founding) error {
	data, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode the founding: %w", err)
	}
	n.founding.Lock()
	defer n.founding.Unlock()
	n.founding.json = data
	return nil
}

func (n *Node) foundingJSON() []byte {
	n.founding.Lock()
	defer n.founding.Unlock()
	return n.founding.json
}

func (n *Node) helloRequest() *routerpb.HelloRequest {
	req := &routerpb.HelloRequest{
		Name: n.cfg.Name, PeerAddr: n.cfg.PeerAddr, Join: n.cfg.Join,
		BootstrapExpect: uint32(n.cfg.BootstrapExpect), Identity: n.foundingJSON(),
	}
	if n.identity != nil {
		req.Incarnation = n.identity.Incarnation
	}
	return req
}

func (n *Node) raftConfig() replica.RaftConfig {
	return replica.RaftConfig{
		Dir: n.cfg.FS.PathJoin(n.cfg.DataDir, "raft"), Address: n.cfg.PeerAddr, ClusterID: n.self.Founding.ClusterID,
		TickInterval: n.cfg.TickInterval, ElectionTicks: electionTicks, LogEntries: n.cfg.RaftLogEntries, LogBytes: n.cfg.RaftLogBytes,
		QueueBytes: share(n.cfg.MemoryBytes).raft,
	}
}
