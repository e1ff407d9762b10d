// Package ports leases TCP ports of loopback to tests whose servers stop and restart.
//
// Invariants:
//
//	L1  A leased port stays its holder's until Release, even while nothing listens on
//	    it: no outgoing connection and no other lease on the machine gets it.
package ports

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
)

// Ports come from below the range that the kernel takes for outgoing connections (Below), so that
// nobody gets one by chance while its holder is down.
const (
	first = 20000
	last  = 29999
)

// Below is the first port that the kernel may take for outgoing connections, as Linux is set by default.
const Below = 32768

// Port is a TCP port on 127.0.0.1 that belongs to its holder until Release.
type Port struct {
	number int
	// guard listens on the same port of another loopback address. It costs the holder
	// nothing and tells other leases, in this process or another, that it is taken.
	guard net.Listener
}

const (
	host      = "127.0.0.1"
	guardHost = "127.0.0.2"
)

// Lease finds a free port. Processes begin their search at different places.
func Lease() (*Port, error) {
	const span = last - first + 1
	start := os.Getpid() * 61 % span
	for i := range span {
		if p, ok := Try(first + (start+i)%span); ok {
			return p, nil
		}
	}
	return nil, errors.New("lease a port: all are taken")
}

// Try leases the port of this number, which is less than Below, unless somebody has it.
func Try(number int) (*Port, bool) {
	guard, err := net.Listen("tcp", net.JoinHostPort(guardHost, strconv.Itoa(number)))
	if err != nil {
		return nil, false
	}
	probe, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(number)))
	if err == nil {
		err = probe.Close()
	}
	if err != nil {
		_ = guard.Close() // only the probe's answer matters
		return nil, false
	}
	return &Port{number: number, guard: guard}, true
}

// Number is the port's number.
func (p *Port) Number() int { return p.number }

// Addr is the port as host:port.
func (p *Port) Addr() string { return net.JoinHostPort(host, strconv.Itoa(p.number)) }

// Release gives the port back.
func (p *Port) Release() error {
	if err := p.guard.Close(); err != nil {
		return fmt.Errorf("release port %d: %w", p.number, err)
	}
	return nil
}
