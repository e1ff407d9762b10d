package replica

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// A log is cut behind a split also where a snapshot was just made that keeps the split's entry, and nobody writes.
func TestWeanWhereNothingHappens(t *testing.T) {
	const between = 50
	p := openProcessWith(t, t.TempDir(), 1, func(c *HostConfig) { c.Raft.LogEntries = between })
	defer p.close()
	p.startNew()
	for p.replica.View().Applied < between {
		p.put("k", "v")
	}
	d := p.replica.View().Descriptor
	rest, child := *d, *d
	rest.Span.End, rest.Epoch, rest.Generation = []byte("m"), d.Epoch+1, d.Generation+1
	child.ID, child.Span, child.Epoch, child.Slot, child.Parent = d.ID+1, shard.Span{Start: []byte("m")}, rest.Epoch, d.Slot+1, d.ID
	require.NoError(t, p.replica.Split(t.Context(), &rest, &child))
	require.Eventually(t, func() bool {
		first, err := p.replica.logBegins(t.Context())
		return err == nil && first > 1
	}, patience, time.Millisecond, "its log is cut by itself")
	first, err := p.replica.logBegins(t.Context())
	require.NoError(t, err)
	require.LessOrEqual(t, first, p.replica.View().Since, "but not behind the split")

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, p.replica.Wean(ctx))
	require.True(t, p.replica.Weaned())
}
