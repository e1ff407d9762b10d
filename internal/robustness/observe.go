package robustness

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/flotilla-kv/flotilla/internal/history"
	"github.com/flotilla-kv/flotilla/internal/proccluster"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Observed is what nodes reported during a run about where shards are, and who leads them.
type Observed struct {
	// Maps is how many maps were examined, over all nodes. Splits and Merges are how many shards appeared and
	// disappeared in the maps of the node that reported most.
	Maps, Splits, Merges int
	// Elected is when nodes were elected because shards had lost their leaders, since the observation began.
	Elected []history.Interval
	// Problems are invalid maps.
	Problems []string
}

// Observe implements Layout: it follows the map of every node, as native clients do, and counts lost leaders.
func (l FlotillaLayout) Observe(ctx context.Context) Observed {
	began := time.Now()
	since := func() time.Duration { return time.Since(began) }
	told := make([]Observed, len(l.Nodes))
	elected := make([][]history.Interval, len(l.Nodes))
	var following sync.WaitGroup
	for i, n := range l.Nodes {
		following.Go(func() { told[i] = observe(ctx, n) })
		following.Go(func() {
			elected[i] = elections(ctx, since, func(ctx context.Context) (int, error) { return lostLeaders(ctx, n.ClientAddr) })
		})
	}
	following.Wait()
	out := Observed{Elected: slices.Concat(elected...)}
	for _, o := range told {
		out.Maps += o.Maps
		out.Splits, out.Merges = max(out.Splits, o.Splits), max(out.Merges, o.Merges)
		out.Problems = append(out.Problems, o.Problems...)
	}
	return out
}

// observe follows one node, which may be away for a while, until the first problem.
func observe(ctx context.Context, n proccluster.Spec) (out Observed) {
	conn, err := grpc.NewClient("passthrough:///"+n.ClientAddr, grpc.WithTransportCredentials(insecure.NewCredentials()), backsOff())
	if err != nil {
		out.Problems = append(out.Problems, fmt.Sprintf("follow the map of %s: %v", n.Name, err))
		return out
	}
	defer conn.Close()
	known := &chart{}
	for ctx.Err() == nil {
		stream, err := routerpb.NewNativeClient(conn).FollowShards(ctx, &routerpb.FollowShardsRequest{Version: known.version, ClusterId: known.cluster})
		for err == nil {
			var u *routerpb.ShardsUpdate
			if u, err = stream.Recv(); err != nil {
				break
			}
			if u.Version <= known.version { // from a node that has just started
				continue
			}
			next, wrong := known.take(u)
			if wrong != nil {
				out.Problems = append(out.Problems, fmt.Sprintf("the map of %s at version %d: %v", n.Name, u.Version, wrong))
				return out
			}
			out.Maps++
			if known.version > 0 {
				out.Splits += next.without(known)
				out.Merges += known.without(next)
			}
			known = next
		}
		_ = wait(ctx, retryPause) // if it fails, the loop ends
	}
	return out
}

// chart is where shards are, according to one version of a node's map.
type chart struct {
	version, cluster uint64
	shards           []*shard.Descriptor // in key order
}

// take returns the chart after an update. The update must be consistent with the chart: each key has one shard, and
// where a span has changed the epoch is higher, by which everybody can recognise the newer one.
func (c *chart) take(u *routerpb.ShardsUpdate) (*chart, error) {
	if c.version > 0 && u.ClusterId != c.cluster {
		return nil, fmt.Errorf("it is of cluster %x, the one before it was of cluster %x", u.ClusterId, c.cluster)
	}
	next := &chart{version: u.Version, cluster: u.ClusterId}
	for _, s := range u.Shards {
		next.shards = append(next.shards, shard.DescriptorOf(s))
	}
	if !u.Whole { // shards that were overlapped are gone
		listed := next.shards
		for _, old := range c.shards {
			if !slices.ContainsFunc(listed, func(d *shard.Descriptor) bool { return d.ID == old.ID || d.Span.Overlaps(old.Span) }) {
				next.shards = append(next.shards, old)
			}
		}
	}
	slices.SortFunc(next.shards, func(a, b *shard.Descriptor) int { return bytes.Compare(a.Span.Start, b.Span.Start) })
	if err := next.audit(); err != nil {
		return nil, err
	}
	return next, next.follows(c)
}

// audit checks that spans are disjoint and cover everything.
func (c *chart) audit() error {
	var end []byte
	for i, d := range c.shards {
		if i > 0 && len(end) == 0 || !bytes.Equal(d.Span.Start, end) {
			return fmt.Errorf("shard %s owns %s, and the one before it ends at %q", d.ID, d.Span, end)
		}
		end = d.Span.End
	}
	if len(c.shards) == 0 || len(end) > 0 {
		return fmt.Errorf("the last of %d shards ends at %q", len(c.shards), end)
	}
	return nil
}

// follows checks the epochs of shards against those of the shards that had their keys before.
func (c *chart) follows(before *chart) error {
	for _, d := range c.shards {
		for _, old := range before.shards {
			same := d.ID == old.ID && d.Span.Equal(old.Span)
			if d.Span.Overlaps(old.Span) && (d.Epoch < old.Epoch || d.Epoch == old.Epoch && !same) {
				return fmt.Errorf("shard %s owns %s at epoch %d, after shard %s owned %s at epoch %d", d.ID, d.Span, d.Epoch, old.ID, old.Span, old.Epoch)
			}
		}
	}
	return nil
}

// without returns how many shards of the chart the other does not have.
func (c *chart) without(other *chart) (n int) {
	for _, d := range c.shards {
		if !slices.ContainsFunc(other.shards, func(o *shard.Descriptor) bool { return o.ID == d.ID }) {
			n++
		}
	}
	return n
}
