package testcluster

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flotilla-kv/flotilla/node"
)

// Node is one place in the cluster: a running node, or the lack of one.
type Node struct {
	Name  string
	Clock *Clock
	Disk  *Disk

	// cfg is what the node is started with, every time.
	cfg node.Config
	log *nodeLog

	mu      sync.Mutex
	running *node.Node
}

// Config is what the next Start begins with; the test may change it through Edit.
func (n *Node) Config() node.Config { return n.cfg }

// Edit changes what the next Start begins with.
func (n *Node) Edit(f func(*node.Config)) { f(&n.cfg) }

// ClientAddr is where clients reach the node.
func (n *Node) ClientAddr() string { return n.cfg.ClientAddr }

// PeerAddr is where other nodes reach the node.
func (n *Node) PeerAddr() string { return n.cfg.PeerAddr }

// Run starts the node and returns when it serves, or why it does not.
func (n *Node) Run(ctx context.Context) error {
	cfg := n.cfg
	cfg.Registerer = prometheus.NewRegistry() // a restarted process has fresh metrics
	created, err := node.New(cfg)
	if err != nil {
		return err
	}
	n.mu.Lock()
	if n.running != nil {
		n.mu.Unlock()
		return errors.New("the node is running")
	}
	n.mu.Unlock()
	if err := created.Start(ctx); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.running = created
	return nil
}

// Start starts the node and fails the test if it does not come to serve.
func (n *Node) Start(tb testing.TB) {
	tb.Helper()
	n.start(tb)
	if tb.Failed() {
		tb.FailNow()
	}
}

// start is Start for any goroutine: it does not end the test.
func (n *Node) start(tb testing.TB) {
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	if err := n.Run(ctx); err != nil {
		tb.Errorf("start %s: %v", n.Name, err)
	}
}

// Stop stops the node, if it runs, and returns when it has stopped.
func (n *Node) Stop() {
	n.mu.Lock()
	running := n.running
	n.running = nil
	n.mu.Unlock()
	if running != nil {
		running.Close()
	}
}

// Restart stops the node and starts it again on what it left behind.
func (n *Node) Restart(tb testing.TB) {
	tb.Helper()
	n.Stop()
	n.Start(tb)
}

// Inside is the running node, nil when it is down.
func (n *Node) Inside() *node.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.running
}

// Logged reports whether the node ever logged a line that contains the words.
func (n *Node) Logged(words string) bool { return n.TimesLogged(words) > 0 }

// TimesLogged is how many lines with the words the node has logged.
func (n *Node) TimesLogged(words string) (times int) {
	for _, line := range n.log.all() {
		if strings.Contains(line, words) {
			times++
		}
	}
	return times
}

func (n *Node) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (n *Node) dialer(network *Network) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) { return network.dial(ctx, n.Name, addr) }
}
