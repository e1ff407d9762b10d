package cmd

import (
	"context"
	"sync"

	"github.com/flotilla-kv/flotilla/node"
)

// keepMemory keeps this process within its nodes' memory budgets, until the result is called.
func keepMemory(ctx context.Context, nodes ...*node.Node) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var keeping sync.WaitGroup
	keeping.Go(func() { node.KeepMemory(ctx, nodes...) })
	return func() {
		cancel()
		keeping.Wait()
	}
}
