package robustness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/proccluster"
)

// EtcdArgs are the arguments of a node of the real etcd.
func EtcdArgs(node proccluster.Spec, all []proccluster.Spec) []string {
	var members []string
	for _, n := range all {
		members = append(members, n.Name+"=http://"+n.PeerAddr)
	}
	return []string{
		"--name", node.Name, "--data-dir", node.DataDir,
		"--listen-client-urls", "http://" + node.ClientAddr, "--advertise-client-urls", "http://" + node.ClientAddr,
		"--listen-peer-urls", "http://" + node.PeerAddr, "--initial-advertise-peer-urls", "http://" + node.PeerAddr,
		"--initial-cluster", strings.Join(members, ","), "--initial-cluster-state", "new",
		// The default of ten minutes is longer than any run.
		"--watch-progress-notify-interval", "300ms",
	}
}

// transferTimeout bounds a transfer: a node that does not answer is down or paused.
const transferTimeout = 500 * time.Millisecond

// EtcdLayout is the single group of the real etcd, whose leader can be changed.
type EtcdLayout struct {
	Fixed
	// Endpoints has one client address for each node.
	Endpoints []string
}

// Transfer implements Layout.
func (l EtcdLayout) Transfer(ctx context.Context, node int) error {
	endpoints := l.Endpoints
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	cli, err := dial(endpoints)
	if err != nil {
		return err
	}
	defer cli.Close()
	target, err := cli.Status(ctx, endpoints[node])
	if err != nil {
		return fmt.Errorf("transfer leadership to %s: %w", endpoints[node], err)
	}
	leader, err := leaderOf(ctx, cli, endpoints, target.Leader)
	if err != nil {
		return fmt.Errorf("transfer leadership to %s: %w", endpoints[node], err)
	}
	defer leader.Close()
	if _, err := leader.MoveLeader(ctx, target.Header.MemberId); err != nil {
		return fmt.Errorf("transfer leadership to %s: %w", endpoints[node], err)
	}
	return nil
}

// leaderOf connects to the member with an ID.
func leaderOf(ctx context.Context, cli *clientv3.Client, endpoints []string, id uint64) (*clientv3.Client, error) {
	for _, e := range endpoints {
		if status, err := cli.Status(ctx, e); err == nil && status.Header.MemberId == id {
			return dial([]string{e})
		}
	}
	return nil, errors.New("no endpoint is the leader's")
}
