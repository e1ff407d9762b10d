//go:build etcd

package conformance_test

import (
	"flag"
	"testing"

	"github.com/flotilla-kv/flotilla/internal/conformance"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

var (
	seed    = flag.Uint64("seed", 1, "of the first random script")
	scripts = flag.Int("scripts", 20, "how many random scripts")
	against = flag.String("against", "", "compare -endpoint with the server here instead of starting both; its data is lost")
)

// TestRandomRequests puts requests that nobody thought of to an etcd and to a Flotilla of one
// shard, whose answers must be the same.
func TestRandomRequests(t *testing.T) {
	o := conformance.Random{Seed: *seed, Scripts: *scripts, Steps: 300, Groups: []string{"k/"}}
	if *against != "" {
		conformance.Differ(t, *endpoint, *against, o)
		return
	}
	c := testcluster.Start(t, testcluster.Options{Nodes: 3})
	conformance.Differ(t, start(t, 3), outsider(t, c).ClientAddr(), o)
}

// TestRandomRequestsOverShards does the same with a Flotilla of several shards, in each of
// which a few of the keys lie.
func TestRandomRequestsOverShards(t *testing.T) {
	o := conformance.Random{Seed: *seed, Scripts: *scripts, Steps: 300, Groups: []string{"b/", "k/", "q/", "x/"}}
	if *against != "" {
		conformance.Differ(t, *endpoint, *against, o)
		return
	}
	c := testcluster.Start(t, testcluster.Options{Nodes: 3, Splits: "c,m,s"})
	conformance.Differ(t, start(t, 3), c.Node(2).ClientAddr(), o)
}
