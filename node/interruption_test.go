package node_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// interruption stops the controller before a step of an operator.
type interruption struct {
	mu      sync.Mutex
	step    string
	reached chan string // the node's name
	resume  chan struct{}
}

func newInterruption() *interruption { return &interruption{reached: make(chan string, 1)} }

// before arms it for one time.
func (i *interruption) before(step string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.step, i.resume = step, make(chan struct{})
}

// at is node.Knobs.Operator.
func (i *interruption) at(ctx context.Context, name, step string) error {
	i.mu.Lock()
	hit := step == i.step
	if hit {
		i.step = ""
	}
	resume := i.resume
	i.mu.Unlock()
	if !hit {
		return nil
	}
	i.reached <- name
	select {
	case <-resume:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// await returns the node whose controller has stopped there.
func (i *interruption) await(t *testing.T, c *testcluster.Cluster) *testcluster.Node {
	t.Helper()
	select {
	case name := <-i.reached:
		return c.Nodes()[slices.IndexFunc(c.Nodes(), func(n *testcluster.Node) bool { return n.Name == name })]
	case <-time.After(20 * time.Second):
		t.Fatal("the step was never reached")
		return nil
	}
}
