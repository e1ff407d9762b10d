package node

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/internal/portmux"
	"github.com/flotilla-kv/flotilla/internal/rpcfront"
	"github.com/flotilla-kv/flotilla/node/dashboard"
	"github.com/flotilla-kv/flotilla/router/adminapi"
	"github.com/flotilla-kv/flotilla/router/auth"
	"github.com/flotilla-kv/flotilla/router/etcdapi"
	"github.com/flotilla-kv/flotilla/router/exec"
	"github.com/flotilla-kv/flotilla/router/native"
	"github.com/flotilla-kv/flotilla/router/peer"
)

// serveClients opens the client port: etcd's gRPC and HTTP, and Flotilla's own service, on
// one address.
func (n *Node) serveClients(context.Context) error {
	cfg := n.cfg.etcdapi(n.room, n.answers)
	passwords := auth.NewPasswords(n.cfg.BcryptCost)
	cfg.Auth, cfg.Users, cfg.Passwords = n.access.guard, n.access, passwords
	cfg.AnswerDistance = n.answerDistance
	cfg.SnapshotDir, cfg.SnapshotRoom = n.snapshotDir(), n.space.lend
	members := &cluster{node: n}
	api := etcdapi.New(cfg, n.router, watches{n.router, n.merger}, n.router, members)
	// Lock and Election are clients of the other services, and the JSON gateway is a client of all,
	// without a socket in between.
	own, err := n.startLoopback(api, api.Register)
	if err != nil {
		return err
	}
	coordination := etcdapi.NewCoordination(own.Conn(), n.access.guard)
	n.onClose(coordination.Close)
	admin := adminapi.New(n.loads, n)
	register := func(g grpc.ServiceRegistrar) {
		api.Register(g)
		coordination.Register(g)
		admin.Register(g)
	}
	loopback, err := n.startLoopback(api, register)
	if err != nil {
		return err
	}
	gateway, err := api.NewGateway(loopback.Conn())
	if err != nil {
		return fmt.Errorf("start the gateway: %w", err)
	}
	metrics := promhttp.HandlerFor(n.cfg.Registerer, promhttp.HandlerOpts{})
	pages := http.NewServeMux()
	pages.Handle("/", api.HTTPHandler(gateway, metrics))
	browsers := http.NewServeMux()
	dashboard.New(dashboard.Config{
		Node: n.cfg.Name, Cluster: n.loads, Alarms: members.Alarms, Heat: n.heat.columns, NodeName: n.nodeName, Keys: n.keys(own.Conn()), Logger: n.log,
	}).Register(browsers)
	guarded := n.access.browsers(passwords, browsers)
	pages.Handle("/{$}", guarded)
	pages.Handle("/dashboard/", guarded)
	web := n.newWebServer(api.Guard(pages))
	mux, err := portmux.New(n.clientTLS.listen(n.client), portmux.Config{}, portmux.HTTP2(), portmux.HTTP1())
	if err != nil {
		return fmt.Errorf("divide the client port: %w", err)
	}
	server := rpcfront.New(mux.Listener(0), api.Front(), append(api.ServerOptions(), grpc.ConnectionTimeout(handshakeTimeout))...)
	register(server)
	direct := n.serveNative(server)
	n.sendAway = func(ctx context.Context) {
		api.Drain()
		var work sync.WaitGroup
		work.Go(func() { server.Leave(ctx) })
		work.Go(func() { web.leave(ctx) })
		work.Go(func() { direct.Leave(ctx) })
		work.Wait()
		direct.Leave(ctx) // also of streams that clients began before they knew
	}
	n.servers.Go(func() { n.served("client port", mux.Serve()) })
	n.servers.Go(func() { n.served("etcd gRPC", server.Run()) })
	n.servers.Go(func() { n.served("etcd HTTP", web.Serve(mux.Listener(1))) })
	n.onClose(func() {
		api.Drain()
		mux.Close()
		server.Stop()
		web.Close()
	})
	if n.cfg.AdminAddr == "" {
		return nil
	}
	return n.serveAdmin(api.HTTPHandler(nil, metrics))
}

// answerDistance is the interval at which responses to writes are sent. While CPU is scarce, batches start at common
// ticks, and those of several shards finish one after the other. Without an interval, each of them would write to the
// socket of nearly every client, and wake it.
func (n *Node) answerDistance() time.Duration {
	if n.host.Short() && n.lanes.Shards() > 1 {
		return answersApart
	}
	return 0
}

// answersApart is shorter than the interval of batches at such times.
const answersApart = 8 * time.Millisecond

// serveNative adds the service of native clients.
func (n *Node) serveNative(g grpc.ServiceRegistrar) *native.Server {
	replicas := exec.New(n.host, n.space.refusal)
	s := native.New(native.Config{
		Self: n.self.NodeID,
		Executor: func(ctx context.Context) peer.Executor {
			_, hangup := rpcfront.Client(ctx)
			return exec.Bounded{Executor: replicas, Answers: n.answers, Stream: ctx, Hangup: hangup}
		},
		Publisher: replicas, Router: n.router, Table: n.table.next,
		Revisions: n.hlc, Clock: n.cfg.Clock, MaxClockOffset: n.cfg.MaxClockOffset,
		Room: n.room, Auth: n.access.guard,
	})
	s.Register(g)
	return s
}

func (n *Node) startLoopback(api *etcdapi.Server, register func(grpc.ServiceRegistrar)) (*etcdapi.Loopback, error) {
	loopback, err := etcdapi.StartLoopback(append(api.ServerOptions(), grpc.WaitForHandlers(true)), register)
	if err != nil {
		return nil, fmt.Errorf("start the node's own connection to its API: %w", err)
	}
	n.onClose(func() { loopback.Close() })
	return loopback, nil
}

func (n *Node) serveAdmin(handler http.Handler) error {
	l, err := listen("--admin-addr", n.cfg.AdminAddr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", handler)
	handleProfiles(mux)
	server := n.newWebServer(mux)
	n.servers.Go(func() { n.served("admin HTTP", server.Serve(n.clientTLS.listen(l))) })
	n.onClose(func() { server.Close() })
	return nil
}
