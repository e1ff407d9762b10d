package watchmerge

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// changes lists what a watch of the span has to give, as transactions.
func (w *world) changes(span shard.Span, from, to shard.Revision) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var events []*mvccpb.Event
	for _, e := range w.log {
		if span.Contains(e.Kv.Key) && revision(e) >= from && revision(e) <= to {
			events = append(events, e)
		}
	}
	slices.SortStableFunc(events, func(a, b *mvccpb.Event) int { return int(revision(a) - revision(b)) })
	return transactions(events)
}

// transactions renders events with those of one revision together, in key order: of one
// transaction that is all that can be said once it is in several shards.
func transactions(events []*mvccpb.Event) []string {
	var out []string
	for len(events) > 0 {
		n := 0
		var keys []string
		for ; n < len(events) && revision(events[n]) == revision(events[0]); n++ {
			keys = append(keys, string(events[n].Kv.Key))
		}
		slices.Sort(keys)
		out = append(out, fmt.Sprintf("%d %v", revision(events[0]), keys))
		events = events[n:]
	}
	return out
}

// client takes what a watch gives and checks what can be checked at once.
type client struct {
	t     testing.TB
	span  shard.Span
	from  shard.Revision
	watch *Watch
	kick  chan struct{}

	events  []*mvccpb.Event
	through shard.Revision
	err     error
}

func (m *Merger) client(t testing.TB, span shard.Span, from shard.Revision) *client {
	c := &client{t: t, span: span, from: from, kick: make(chan struct{}, 1)}
	c.watch = m.Open(Options{Span: span, From: from}, func() {
		select {
		case c.kick <- struct{}{}:
		default:
		}
	})
	return c
}

// take polls until there is nothing more.
func (c *client) take(max int) {
	for again := true; again && c.err == nil; {
		got, err := c.watch.Poll(max)
		if err != nil {
			c.err = err
			return
		}
		for i, e := range got.Events {
			require.True(c.t, c.span.Contains(e.Kv.Key))
			require.GreaterOrEqual(c.t, revision(e), c.from)
			require.Greater(c.t, revision(e), c.through, "an event at or below what was promised (W1, W2, W6)")
			if i > 0 {
				require.GreaterOrEqual(c.t, revision(e), revision(got.Events[i-1]), "order (W1)")
			}
			require.LessOrEqual(c.t, revision(e), got.Through, "given, but not in Through")
		}
		c.through = maxRevision(c.through, got.Through)
		c.events = append(c.events, got.Events...)
		again = false
		select {
		case <-c.kick:
			again = true
		default:
		}
	}
}

// until waits until the watch has come to rev.
func (c *client) until(rev shard.Revision) {
	for c.take(64); c.through < rev && c.err == nil; c.take(64) {
		<-c.kick
	}
}

func (c *client) keys() string {
	var b bytes.Buffer
	for _, e := range c.events {
		b.Write(e.Kv.Key)
		b.WriteByte(' ')
	}
	return b.String()
}
