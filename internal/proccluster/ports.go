package proccluster

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
)

// Ports come from below the range the kernel takes for outgoing connections, so that
// nobody gets one by chance while its node is down.
const (
	portFirst = 20000
	portLast  = 29999
)

// port is a TCP port on 127.0.0.1 that belongs to one node until it is released.
type port struct {
	number int
	// guard listens on the same port of another loopback address. It costs the node
	// nothing and tells other clusters, in this process or another, that it is taken.
	guard net.Listener
}

const guardHost = "127.0.0.2"

// leasePort finds a free port. Processes begin their search at different places.
func leasePort() (*port, error) {
	span := portLast - portFirst + 1
	start := os.Getpid() * 61 % span
	for i := range span {
		if p, ok := tryPort(portFirst + (start+i)%span); ok {
			return p, nil
		}
	}
	return nil, errors.New("lease a port: all are taken")
}

func tryPort(number int) (*port, bool) {
	guard, err := net.Listen("tcp", net.JoinHostPort(guardHost, strconv.Itoa(number)))
	if err != nil {
		return nil, false
	}
	probe, err := net.Listen("tcp", (&port{number: number}).addr())
	if err != nil {
		_ = guard.Close() // only the probe's answer matters
		return nil, false
	}
	if err := probe.Close(); err != nil {
		_ = guard.Close()
		return nil, false
	}
	return &port{number: number, guard: guard}, true
}

func (p *port) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number)) }

func (p *port) release() error {
	if err := p.guard.Close(); err != nil {
		return fmt.Errorf("release port %d: %w", p.number, err)
	}
	return nil
}
