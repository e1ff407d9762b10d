package robustness_test

import "github.com/flotilla-kv/flotilla/internal/robustness"

// nodeEntry returns what a node of the cluster runs: the body of "flotilla <args>",
// with the named bugs planted. It returns nil while no node is linked in; then only
// external binaries can be tested.
func nodeEntry(knobs []string) func(args []string) int {
	_ = knobs
	return nil
}

// reshape splits and moves shards through the admin API of a cluster of such nodes.
func reshape() robustness.ReshapeFunc { return nil }
