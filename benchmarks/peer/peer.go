package peer

import (
	"context"
	"fmt"
	"time"
)

// Kind is one system that can be started: etcd, Flotilla, or another one later.
type Kind interface {
	// Name is what tables call it.
	Name() string
	// Binary returns the server's executable, building it first if need be.
	Binary(ctx context.Context) (string, error)
	// command is how node i of the plan is started.
	command(p plan, i int) []string
}

// Options are the same for every kind.
type Options struct {
	// Nodes is the number of server processes.
	Nodes int
	// Dir holds data directories and logs. The caller removes it.
	Dir string
	// CPUs are the CPUs that the servers may use, in taskset's form; "" is all.
	CPUs string
	// Fsyncs, if its delay is not 0, slows the servers' disk down.
	Fsyncs SlowFsyncs
	// Shards is the number of key ranges into which the keyspace is divided initially, for kinds
	// that support it. 0 leaves it to the kind.
	Shards int
}

// SlowFsyncs delays each fsync and fdatasync of a process by Delay.
type SlowFsyncs struct {
	Delay time.Duration
	// Holder is the command that runs Hold for the command that is appended to it.
	Holder []string
}

// plan is what all nodes of a cluster must know of each other before they start.
type plan struct {
	Options
	client, peer []string // host:port of node i
	dirs         []string // data directory of node i
}

func nodeName(i int) string { return fmt.Sprintf("n%d", i+1) }

// For returns the kind with the given name; path is its binary, or "" to build it.
func For(name, path string) (Kind, error) {
	switch name {
	case "etcd":
		return Etcd{Path: path}, nil
	case "flotilla":
		return Flotilla{Path: path}, nil
	}
	return nil, fmt.Errorf("unknown system %q: know etcd and flotilla", name)
}
