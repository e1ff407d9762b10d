package peer

import (
	"context"
	"strconv"
	"strings"
)

// Flotilla is this repository's server.
type Flotilla struct {
	// Path is the server's binary; "" builds it.
	Path string
	// Flags are given to every node besides those that make a cluster of them.
	Flags []string
}

// Name implements Kind.
func (Flotilla) Name() string { return "flotilla" }

// Binary implements Kind.
func (f Flotilla) Binary(ctx context.Context) (string, error) {
	if f.Path != "" {
		return given(f.Path)
	}
	return build(ctx, ".", "./tools/flotilla", "flotilla")
}

func (f Flotilla) command(p plan, i int) []string {
	args := []string{
		"start",
		"--name", nodeName(i),
		"--data-dir", p.dirs[i],
		"--client-addr", p.client[i],
		"--peer-addr", p.peer[i],
		"--join", strings.Join(p.peer, ","),
		"--bootstrap-expect", strconv.Itoa(p.Nodes),
	}
	if p.Shards > 0 {
		args = append(args, "--initial-splits", "uniform:"+strconv.Itoa(p.Shards))
	}
	return append(args, f.Flags...)
}
