package testcluster

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Network is what the nodes of a cluster dial through. A link is one direction
// between two nodes; all are open at first.
type Network struct {
	ctx    context.Context
	cancel context.CancelFunc
	relays sync.WaitGroup

	mu struct {
		sync.Mutex
		names   map[string]string // peer address -> node
		cut     map[link]bool
		delay   map[link]time.Duration
		damage  Damage
		changed chan struct{} // closed and replaced when a cut link opens
	}
}

type link struct{ from, to string }

func (l link) reverse() link { return link{l.to, l.from} }

func newNetwork() *Network {
	n := &Network{}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.mu.names = make(map[string]string)
	n.mu.cut = make(map[link]bool)
	n.mu.delay = make(map[link]time.Duration)
	n.mu.changed = make(chan struct{})
	return n
}

// Cut stops what from sends to to; the other direction goes on (T3).
func (n *Network) Cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.cut[link{from, to}] = true
}

// Isolate cuts both directions between the node and the others.
func (n *Network) Isolate(name string, others ...string) {
	for _, o := range others {
		n.Cut(name, o)
		n.Cut(o, name)
	}
}

// Delay makes everything from one node to another take so much longer.
func (n *Network) Delay(from, to string, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.delay[link{from, to}] = d
}

// Damage is what happens on the way to data of a connection, of which first is how its direction began. It returns what arrives, and
// false if the connection then ends. It is called from many goroutines.
type Damage func(from, to string, first, data []byte) (arrives []byte, goesOn bool)

// Damage makes everything that is sent from now on pass through d; nil ends that.
func (n *Network) Damage(d Damage) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.damage = d
}

// Heal mends all links, and ends all delays and all damage.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.mu.cut)
	clear(n.mu.delay)
	n.mu.damage = nil
	close(n.mu.changed)
	n.mu.changed = make(chan struct{})
}

// close ends every connection, cut or not, and waits (T1).
func (n *Network) close() {
	n.cancel()
	n.relays.Wait()
}

func (n *Network) know(name, addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.names[addr] = name
}

// open waits until the links are open at the same moment.
func (n *Network) open(ctx context.Context, links ...link) error {
	for {
		n.mu.Lock()
		open := true
		for _, l := range links {
			open = open && !n.mu.cut[l]
		}
		changed := n.mu.changed
		n.mu.Unlock()
		if open {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-n.ctx.Done():
			return net.ErrClosed
		}
	}
}

// dial connects a node to a peer address. A handshake needs both directions.
func (n *Network) dial(ctx context.Context, from, addr string) (net.Conn, error) {
	n.mu.Lock()
	to, known := n.mu.names[addr]
	n.mu.Unlock()
	if !known {
		return nil, fmt.Errorf("dial %s: no node of the cluster has this address", addr)
	}
	there := link{from, to}
	if err := n.open(ctx, there, there.reverse()); err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	remote, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	local, near := net.Pipe()
	n.relays.Go(func() { n.relay(there, near, remote) })
	n.relays.Go(func() { n.relay(there.reverse(), remote, near) })
	return local, nil
}

// parcel is what one read of a connection gave; the last one of a connection is empty.
type parcel struct {
	data []byte
	due  time.Time
}

const (
	// parcelBytes and parcelsMax bound what one direction of a connection has under
	// way; beyond, the sender blocks as on a full TCP buffer.
	parcelBytes = 64 << 10
	parcelsMax  = 1024
	// firstBytes is how much of its beginning is remembered of each direction of a connection, for those who damage it.
	firstBytes = 24
)

// relay carries one direction of a connection until it ends.
func (n *Network) relay(l link, src, dst net.Conn) {
	parcels := make(chan parcel, parcelsMax)
	stop := context.AfterFunc(n.ctx, func() {
		src.Close()
		dst.Close()
	})
	defer stop()
	// Closed early, dst's other direction ends too; closed late, T3 would not hold.
	defer dst.Close()
	done := make(chan struct{})
	n.relays.Go(func() { n.collect(l, src, parcels, done) })
	defer close(done)
	for p := range parcels {
		if !n.wait(p.due) || n.open(n.ctx, l) != nil {
			return
		}
		if _, err := dst.Write(p.data); err != nil {
			src.Close()
			return
		}
	}
	_ = n.open(n.ctx, l) // the end travels like everything else
}

// collect reads what src gives into parcels until src or the relay ends.
func (n *Network) collect(l link, src net.Conn, parcels chan<- parcel, done <-chan struct{}) {
	defer close(parcels)
	buf := make([]byte, parcelBytes)
	var first []byte
	for {
		k, err := src.Read(buf)
		if k > 0 {
			n.mu.Lock()
			due, damage := time.Now().Add(n.mu.delay[l]), n.mu.damage
			n.mu.Unlock()
			data, goesOn := bytes.Clone(buf[:k]), true // most are small
			if first == nil {
				first = bytes.Clone(data[:min(k, firstBytes)])
			}
			if damage != nil {
				data, goesOn = damage(l.from, l.to, first, data)
			}
			select {
			case parcels <- parcel{data, due}:
			case <-done:
				return
			}
			if !goesOn {
				src.Close()
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// wait returns false when the network closed first.
func (n *Network) wait(due time.Time) bool {
	d := time.Until(due)
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-n.ctx.Done():
		return false
	}
}
