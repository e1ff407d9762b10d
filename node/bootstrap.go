package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// bootstrapPause is the time between two looks at the peers.
const bootstrapPause = 200 * time.Millisecond

// membership makes the node part of a cluster and returns its identity, which is durable then. For
// a node that already is, it only checks the flags.
func (n *Node) membership(ctx context.Context, id *Identity) error {
	if id.Cluster != nil {
		return checkFlags(n.cfg, id.Cluster)
	}
	logged := ""
	for {
		replies, others := n.hello(ctx)
		member, waiting, err := n.decide(ctx, id, replies)
		if err != nil {
			return err
		}
		if member != nil {
			id.Cluster = member
			return id.save(n.cfg.FS, n.cfg.DataDir)
		}
		if len(others) > 0 {
			waiting += fmt.Sprintf("; what answers at %v is no node's --peer-addr, which --join wants, but a --client-addr perhaps", others)
		}
		if waiting != logged {
			n.log.Info("waiting to become part of a cluster", "for", waiting)
			logged = waiting
		}
		if err := pause(ctx, bootstrapPause); err != nil {
			return err
		}
	}
}

// checkFlags compares the node's identity with its configuration.
func checkFlags(c Config, m *Membership) error {
	if c.Name != m.Name {
		return fmt.Errorf("data directory %s belongs to node %q, not %q; give --name %s or another --data-dir", c.DataDir, m.Name, c.Name, m.Name)
	}
	if c.PeerAddr != m.PeerAddr {
		return fmt.Errorf("node %q is known to its cluster at %s, which cannot change; give --peer-addr %s", m.Name, m.PeerAddr, m.PeerAddr)
	}
	return nil
}

// hello introduces the node to all of Join and returns the answers received, and the addresses where something
// answers that is no peer port.
func (n *Node) hello(ctx context.Context) (replies map[string]*routerpb.HelloReply, others []string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var mu sync.Mutex
	replies = make(map[string]*routerpb.HelloReply)
	var wg sync.WaitGroup
	for _, addr := range n.cfg.Join {
		if addr == n.cfg.PeerAddr {
			continue
		}
		wg.Go(func() {
			reply, err := routerpb.NewPeerClient(n.peers.at(addr).Conn()).Hello(ctx, n.helloRequest())
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				replies[addr] = reply
			case status.Code(err) == codes.Unimplemented:
				others = append(others, addr)
			}
		})
	}
	wg.Wait()
	slices.Sort(others)
	return replies, others
}

// decide returns the node's membership, or what it is still waiting for.
func (n *Node) decide(ctx context.Context, id *Identity, replies map[string]*routerpb.HelloReply) (*Membership, string, error) {
	for addr, reply := range replies {
		if len(reply.Identity) == 0 {
			continue
		}
		var founding Founding
		if err := json.Unmarshal(reply.Identity, &founding); err != nil {
			return nil, "", fmt.Errorf("node at %s tells a cluster that this version cannot read: %w", addr, err)
		}
		founder, ok := founding.founder(n.cfg.Name, n.cfg.PeerAddr)
		if !ok {
			return n.join(ctx, id, addr, founding)
		}
		if bytes.Equal(founder.Incarnation, id.Incarnation) {
			return &Membership{NodeID: founder.NodeID, Name: founder.Name, PeerAddr: founder.PeerAddr, Founding: founding}, "", nil
		}
		// It may have been removed since: then its name and its address are free.
		member, waiting, err := n.join(ctx, id, addr, founding)
		if err != nil {
			return nil, "", fmt.Errorf("cluster %x has node %q at %s with another data directory than %s: its data was lost, or this directory belongs elsewhere. "+
				"If the data still exists, start the node with it. If it is lost for good, join as a new node: an empty data directory, a new --name, a new --peer-addr and no --bootstrap-expect",
				founding.ClusterID, founder.Name, founder.PeerAddr, n.cfg.DataDir)
		}
		return member, waiting, nil
	}
	if n.cfg.BootstrapExpect == 0 {
		return nil, fmt.Sprintf("a running cluster at one of %v", n.cfg.Join), nil
	}
	names := make(map[string]string) // -> address of a founder with that name
	for _, addr := range n.cfg.Join {
		reply := replies[addr]
		if addr == n.cfg.PeerAddr {
			continue
		}
		if reply == nil {
			return nil, fmt.Sprintf("founder %s to answer", addr), nil
		}
		if !slices.Equal(reply.Join, n.cfg.Join) || int(reply.BootstrapExpect) != n.cfg.BootstrapExpect {
			return nil, fmt.Sprintf("founder %s (%s) to be started with the same --join and --bootstrap-expect; it has %v and %d", reply.Name, addr, reply.Join, reply.BootstrapExpect), nil
		}
		if reply.Name == n.cfg.Name {
			return nil, "", fmt.Errorf("the node at %s has the same --name %q", addr, n.cfg.Name)
		}
		if other := names[reply.Name]; other != "" {
			return nil, fmt.Sprintf("founders %s and %s to have different names; both have --name %q", other, addr, reply.Name), nil
		}
		names[reply.Name] = addr
	}
	if n.cfg.Join[0] != n.cfg.PeerAddr {
		return nil, fmt.Sprintf("%s to found the cluster", n.cfg.Join[0]), nil
	}
	return n.found(id, replies), "", nil
}

// found founds a cluster. Only the founder with the lowest address does so, once: its decision is
// durable before anyone hears of it.
func (n *Node) found(id *Identity, replies map[string]*routerpb.HelloReply) *Membership {
	f := Founding{ClusterID: randomID(), InitialSplits: n.cfg.InitialSplits, ReplicationFactor: n.cfg.ReplicationFactor}
	for i, addr := range n.cfg.Join {
		founder := Founder{NodeID: shard.NodeID(i + 1), Name: n.cfg.Name, PeerAddr: addr, Incarnation: id.Incarnation}
		if reply := replies[addr]; reply != nil {
			founder.Name, founder.Incarnation = reply.Name, reply.Incarnation
		}
		f.Founders = append(f.Founders, founder)
	}
	return &Membership{NodeID: 1, Name: n.cfg.Name, PeerAddr: n.cfg.PeerAddr, Founding: f}
}

// join asks a running cluster for membership.
func (n *Node) join(ctx context.Context, id *Identity, addr string, founding Founding) (*Membership, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	reply, err := routerpb.NewPeerClient(n.peers.at(addr).Conn()).Join(ctx, &routerpb.JoinRequest{
		Name: n.cfg.Name, PeerAddr: n.cfg.PeerAddr, ClientUrls: n.cfg.AdvertiseClientURLs, Incarnation: id.Incarnation,
	})
	if err != nil {
		if refused := joinRefusal(err); refused != nil {
			return nil, "", refused
		}
		return nil, fmt.Sprintf("the cluster at %s to admit this node (%v)", addr, err), nil
	}
	return &Membership{NodeID: shard.NodeID(reply.NodeId), Name: n.cfg.Name, PeerAddr: n.cfg.PeerAddr, Founding: founding}, "", nil
}
