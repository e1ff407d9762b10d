package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/flotilla-kv/flotilla/internal/portmux"
	"github.com/flotilla-kv/flotilla/node/raftnet"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/exec"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/router/watchmerge"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/raftlog"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// cachedDescriptors bounds the router's cache. It is more than the number of shards that a cluster is meant to have.
const cachedDescriptors = 16 << 10

// ownHeaders is how many headers a shard may always cache, even when busier shards have used up the
// node's budget for headers.
const ownHeaders = 256

// Start starts the node and returns when it serves clients, or fails. ctx bounds only the start.
// After an error the node is closed.
func (n *Node) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	starting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(n.ctx, func() { stop(context.Cause(n.ctx)) })()
	n.onClose(n.peers.close)

	for _, step := range []func(context.Context) error{
		n.readCertificates, // before anything listens
		n.access.readKeys,  // a wrong key changes nothing on disk
		n.openDirectory,    // nobody else uses the data; the incarnation is durable (D1)
		n.listenPeers,      // others can say hello, and learn what this node knows
		n.belong,           // identity is durable from here on (D1, D2)
		n.openStore,        // before Raft replays into it
		n.checkClock,       // before anything can be proposed (D3)
		n.openRaft,         // messages flow; no replica runs yet
		n.startMeta,        // the table becomes known
		n.startRouter,      // commands of the agent and of clients can be routed
		n.startAgent,       // shards start
		n.startKeeper,      // leases that expired while nobody led their shards are revoked
		n.listenClients,    // a taken port shows before the wait below
		n.waitForShards,    // every replica knows its descriptor (D4)
		n.seePast,          // every replica has caught up with what was acknowledged before (D4)
		n.access.know,      // clients need not be refused until it is known who may do what (auth G2)
		n.serveClients,     // ready
		n.introduceToMap,   // addresses that may have changed
	} {
		if err := step(starting); err != nil {
			return err
		}
	}
	n.log.Info("ready to serve client requests", "client_addr", n.cfg.ClientAddr, "node_id", n.self.NodeID)
	return nil
}

func (n *Node) openDirectory(context.Context) (err error) {
	if n.lock, err = lockDir(n.cfg.FS, n.cfg.DataDir); err != nil {
		return err
	}
	n.onClose(func() { n.lock.Close() })
	if n.identity, err = loadIdentity(n.cfg.FS, n.cfg.DataDir); err != nil {
		return err
	}
	if err := n.cfg.FS.RemoveAll(n.snapshotDir()); err != nil {
		return fmt.Errorf("remove what snapshots left behind: %w", err)
	}
	n.remembered, err = loadPeers(n.cfg.FS, n.cfg.DataDir)
	return err
}

// snapshotDir is where the files of snapshots are made. A node that is killed leaves them to its next start.
func (n *Node) snapshotDir() string { return n.cfg.FS.PathJoin(n.cfg.DataDir, "snapshots") }

// listen opens a port and names the flag to change when it is taken.
func listen(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s %s cannot be listened on: %w; stop what uses it or give another address", flag, addr, err)
	}
	return l, nil
}

func (n *Node) listenPeers(context.Context) error {
	l, err := listen("--peer-addr", n.cfg.PeerAddr)
	if err != nil {
		return err
	}
	n.peerMux, err = portmux.New(n.peerTLS.listen(l), portmux.Config{}, portmux.HTTP2(), portmux.Protocol{Name: "raft", Prefixes: []string{raftnet.Preface}})
	if err != nil {
		l.Close()
		return fmt.Errorf("divide the peer port: %w", err)
	}
	n.peerGRPC = newRPCServer(n.peerMux.Listener(0),
		grpc.ForceServerCodecV2(peer.Codec()),
		grpc.MaxRecvMsgSize(requestBytesMax), grpc.MaxSendMsgSize(requestBytesMax),
		grpc.InitialWindowSize(4<<20), grpc.InitialConnWindowSize(8<<20),
		grpc.ChainUnaryInterceptor(n.checkUnary), grpc.ChainStreamInterceptor(n.checkStream),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
	)
	routerpb.RegisterPeerServer(n.peerGRPC, &peerServer{node: n})
	n.servers.Go(func() { n.served("peer port", n.peerMux.Serve()) })
	n.servers.Go(func() { n.served("peer gRPC", n.peerGRPC.Run()) })
	n.onClose(func() {
		n.peerGRPC.Stop()
		n.peerMux.Close()
		n.servers.Wait()
	})
	return nil
}

// served handles the end of a server, which is an error while the node runs.
func (n *Node) served(what string, err error) {
	if err != nil && n.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
		n.fail(fmt.Errorf("serve %s: %w", what, err))
	}
}

func (n *Node) belong(ctx context.Context) error {
	if err := n.membership(ctx, n.identity); err != nil {
		return err
	}
	n.self = n.identity.Cluster
	_, founder := n.self.Founding.founder(n.self.Name, n.self.PeerAddr)
	n.access.open(founder)
	n.cluster.Store(n.self.Founding.ClusterID)
	return n.setFounding(n.self.Founding)
}

func (n *Node) openStore(context.Context) (err error) {
	dir := n.cfg.FS.PathJoin(n.cfg.DataDir, "store")
	if names, err := n.cfg.FS.List(dir); n.identity.Stored && (err != nil || len(names) == 0) {
		return fmt.Errorf("the data of node %q is gone from %s; put it back, or remove the node from the cluster and join again with an empty data directory: %w", n.cfg.Name, dir, shard.ErrCorrupt)
	}
	n.engine, err = engine.Open(dir, engine.Options{FS: n.cfg.FS, CacheBytes: n.cfg.CacheBytes, Logger: n.log})
	if err != nil {
		return err
	}
	n.onClose(func() {
		if err := n.engine.Close(); err != nil {
			n.log.Error("closing the store", "error", err)
		}
	})
	if n.identity.Stored {
		return nil
	}
	n.identity.Stored = true
	return n.identity.save(n.cfg.FS, n.cfg.DataDir)
}

func (n *Node) checkClock(ctx context.Context) error {
	n.health.look(ctx)
	if err := n.health.amongStrangers(); err != nil {
		return err
	}
	n.work.Go(func() { n.health.run(n.ctx) })
	return nil
}

func (n *Node) openRaft(context.Context) (err error) {
	raft, parts := n.raftConfig(), share(n.cfg.MemoryBytes)
	transport := &raftnet.Factory{Listener: n.peerMux.Listener(1), Dial: n.dialPeer, Logger: n.log, Quiet: raft.TickInterval / 2, Lost: n.departed.connectionLost, Room: n.space.receive}
	raft.Transport = transport
	raft.Log = &raftlog.Factory{FS: n.cfg.FS, Logger: n.log, Registerer: n.cfg.Registerer, Synced: n.loads.synced}
	machines := apply.Options{
		Headers: n.headers, Rows: mvcc.NewRows(parts.rows), Trails: mvcc.NewTrails(parts.trails),
		Backlog: apply.NewBacklog(parts.backlog, func(gather func()) { go gather() }), Knobs: n.cfg.Knobs.Apply,
	}
	exportMemory(n.cfg.Registerer, n.cfg.MemoryBytes, n.memoryParts(parts, machines))
	n.host, err = replica.OpenHost(replica.HostConfig{
		Node: n.self.NodeID, Incarnation: randomID(), Engine: n.engine, Raft: raft, Source: n.hlc,
		Logger: n.log, Metrics: replica.NewMetrics(n.cfg.Registerer), ProposalTimeout: n.cfg.ProposalTimeout, SnapshotRate: n.cfg.SnapshotRate, Busy: func() func() float64 { return new(processors).busy }, Spaced: transport.Space,
		Doubted: n.check.suspect,
		Apply:   machines,
		Knobs:   n.cfg.Knobs.Replica,
	})
	if err != nil {
		return err
	}
	n.onClose(func() {
		n.peerGRPC.Stop() // nobody calls the replicas any more
		n.host.Close()
	})
	return nil
}

func (n *Node) startMeta(context.Context) error {
	if err := n.meta.start(n.self); err != nil {
		return err
	}
	n.work.Go(func() { n.meta.follow(n.ctx) })
	n.work.Go(n.rememberPeers)
	return nil
}

func (n *Node) startRouter(context.Context) error {
	cache := router.NewCache(n.table, cachedDescriptors)
	n.agent.cache = cache
	sender := &sender{self: n.self.NodeID, exec: exec.New(n.host, n.space.refusal), peers: n.peers, table: n.table, answers: n.answers}
	unfit := func(id shard.ID) bool {
		r, runs := n.host.Replica(id)
		return runs && r.Unfit() != ""
	}
	silent := func(id shard.NodeID) bool { return id != n.self.NodeID && !n.health.answers(id) }
	n.router = router.New(router.Config{
		Self: n.self.NodeID, Unfit: unfit, Silent: silent, Cache: cache, Revisions: n.hlc, Compactions: n.meta, Logger: n.log, Knobs: n.cfg.Knobs.Router,
		ElectionTimeout: electionTicks * n.cfg.TickInterval,
		Sender:          sender, Starter: sender, Reader: sender.exec, Subscriber: sender, Heeder: sender.exec,
		Lanes: n.lanes,
	})
	n.onClose(n.router.Close)
	n.merger = watchmerge.New(n.router, n.cfg.Knobs.Watch)
	n.onClose(n.merger.Close)
	n.work.Go(func() { n.feed(cache) })
	return nil
}

// feed passes every change of the table to the cache, so that it is rarely stale.
func (n *Node) feed(cache *router.Cache) {
	for {
		m, changed := n.table.next()
		if !n.cfg.Knobs.StaleRoutes {
			for _, d := range m.Shards() {
				cache.Learn(d)
			}
		}
		if err := n.expelled(); err != nil {
			n.fail(err)
			return
		}
		select {
		case <-changed:
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Node) startAgent(context.Context) error {
	n.started.Store(true) // peers need this node to become ready themselves
	n.work.Go(func() { n.agent.run(n.ctx) })
	n.work.Go(func() { n.access.run(n.ctx) })
	n.work.Go(func() { n.elect.run(n.ctx) })
	n.work.Go(func() { n.departed.run(n.ctx) })
	n.work.Go(func() { n.control.run(n.ctx) })
	n.work.Go(func() { n.balance.run(n.ctx) })
	n.work.Go(func() { n.loads.run(n.ctx) })
	n.work.Go(func() { n.heat.run(n.ctx) })
	n.startShorteningReads()
	n.work.Go(func() { n.check.investigate(n.ctx) })
	if n.cfg.CorruptCheckTime > 0 {
		n.work.Go(func() { n.check.run(n.ctx) })
	}
	if n.cfg.HistoryRetention > 0 {
		n.work.Go(func() { n.retain(n.ctx) })
	}
	return nil
}

func (n *Node) startKeeper(context.Context) error {
	k := newKeeper(n)
	n.work.Go(func() { k.run(n.ctx) })
	return nil
}

func (n *Node) listenClients(context.Context) (err error) {
	n.client, err = listen("--client-addr", n.cfg.ClientAddr)
	if err != nil {
		return err
	}
	n.onClose(func() { n.client.Close() })
	return nil
}

func (n *Node) waitForShards(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	said := time.NewTicker(waitingSaid)
	defer said.Stop()
	for {
		if err := n.expelled(); err != nil {
			return err
		}
		missing := n.missing()
		if missing == "" {
			return nil
		}
		select {
		case <-tick.C:
		case <-said.C:
			n.log.Warn("not serving clients yet", "waiting_for", missing, "nodes_out_of_reach", n.health.silent())
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", missing, context.Cause(ctx))
		}
	}
}

// pastPatience bounds seePast. A node that was killed needs a few tenths of a second. One that was away for long may
// need minutes, but it has not acknowledged what it lacks.
const pastPatience = 5 * time.Second

// seePast waits until the node knows the revisions that were acknowledged before it was killed.
func (n *Node) seePast(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, pastPatience)
	defer cancel()
	known := n.table.Map()
	err := n.host.SeePast(bounded)
	if err == nil {
		err = n.seeLatecomers(bounded, known)
	}
	if err != nil && ctx.Err() == nil {
		n.log.Warn("serving clients before all replicas of this node have caught up", "error", err)
	}
	return context.Cause(ctx)
}

// seeLatecomers does what seePast does, for shards that known does not list. There may be such shards: the child of a split
// serves before it is in the table, and its replica starts only when the parent's replica has reached the split again.
func (n *Node) seeLatecomers(ctx context.Context, known *placement.Map) error {
	m, err := n.meta.barrier(ctx)
	if err != nil {
		return err
	}
	children := m.Beginning(n.self.NodeID)
	if len(children) == 0 && m.Version() == known.Version() {
		return nil
	}
	err = until(ctx, func() error {
		if what := n.missing(); what != "" {
			return fmt.Errorf("wait for %s", what)
		}
		for _, d := range children {
			if r, runs := n.host.Replica(d.ID); !runs || r.Unborn() {
				return fmt.Errorf("wait for shard %s, which is split off, to begin", d.ID)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return n.host.SeePast(ctx)
}

// expelled returns an error if the node was removed from its cluster. Its data is useless then, and it must not answer
// anybody.
func (n *Node) expelled() error {
	own := n.table.Map().Node(n.self.NodeID)
	if own == nil || own.State != placement.Removed {
		return nil
	}
	return fmt.Errorf("node %q (ID %s) was removed from cluster %x; to join again, start it with an empty data directory", n.self.Name, own.ID, n.self.Founding.ClusterID)
}

// waitingSaid is how often a node that cannot serve yet logs why. It is long because founding a cluster on a busy
// machine takes an election or two, which is no reason for a warning.
const waitingSaid = 10 * time.Second

// introduceToMap keeps this node's addresses and version in the table up to date. It retries in the background,
// because the node can serve without it.
func (n *Node) introduceToMap(context.Context) error {
	n.work.Go(func() {
		for n.ctx.Err() == nil {
			err := n.advertise(n.ctx)
			if err == nil {
				return
			}
			n.log.Debug("introducing the node", "error", err)
			_ = pause(n.ctx, time.Second)
		}
	})
	return nil
}

// advertise writes to the meta group only if something has changed: a restart costs it a read.
func (n *Node) advertise(ctx context.Context) error {
	// This node's own copy of the table may be older than its last start.
	m, err := n.meta.barrier(ctx)
	if err != nil {
		return err
	}
	advertised := &placementpb.Advertised{
		PeerAddr: n.cfg.PeerAddr, ClientUrls: n.cfg.AdvertiseClientURLs, AdminAddr: n.cfg.AdminAddr, ServerVersion: n.cfg.Version,
	}
	if own := m.Node(n.self.NodeID); own != nil && own.Advertises(advertised) {
		return nil
	}
	_, err = n.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_UpdateNode{UpdateNode: &placementpb.UpdateNode{
		NodeId: uint64(n.self.NodeID), Incarnation: n.identity.Incarnation, Advertised: advertised,
	}}})
	return err
}
