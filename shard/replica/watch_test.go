package replica

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/watch"
)

// follower follows a replica by one feed after another, each from where the last one
// came to.
type follower struct {
	t       *testing.T
	feed    *watch.Subscription
	ready   chan struct{}
	through shard.Revision
	values  []string
}

func (f *follower) follow(r *Replica) {
	f.t.Helper()
	f.ready = make(chan struct{}, 1)
	var err error
	f.feed, err = r.Subscribe(watch.Options{Epoch: 1, Span: shard.PointSpan([]byte("k")), From: f.through + 1, Ready: func() {
		select {
		case f.ready <- struct{}{}:
		default:
		}
	}})
	require.NoError(f.t, err)
}

// until polls until the feed has told all up to the revision, or has ended.
func (f *follower) until(rev shard.Revision) error {
	f.t.Helper()
	f.feed.Await(rev)
	for f.through < rev {
		select {
		case <-f.ready:
		case <-time.After(patience):
			f.t.Fatalf("at revision %s, nobody called ready", f.through)
		}
		c, err := f.feed.Poll(3)
		if err != nil {
			return err
		}
		for _, e := range c.Events {
			f.values = append(f.values, string(e.Kv.Value))
		}
		f.through = c.Through
	}
	return nil
}

// A feed ends when its replica does, and another one goes on where it was, in the next
// life of the process.
func TestFeedsAcrossARestart(t *testing.T) {
	dir := t.TempDir()
	p := openProcess(t, dir, 1, Knobs{})
	p.startNew()
	f := &follower{t: t, through: p.replica.View().Rev}
	f.follow(p.replica)
	var want []string
	var last shard.Revision
	put := func(n int) {
		for range n {
			want = append(want, fmt.Sprint(len(want)))
			last = p.put("k", want[len(want)-1])
			p.put("other", "x")
		}
	}
	put(20)
	require.NoError(t, f.until(last))
	require.Equal(t, want, f.values)
	put(10) // applied here, and not asked for before the end
	p.close()
	require.ErrorIs(t, f.until(last), shard.ErrStopped)

	p = openProcess(t, dir, 2, Knobs{})
	defer func() { p.close() }()
	p.start()
	f.follow(p.replica)
	put(10)
	require.NoError(t, f.until(last))
	require.Equal(t, want, f.values)
}

// A feed of a replica that receives a snapshot is told what happened meanwhile.
func TestFeedsAndSnapshots(t *testing.T) {
	from, sm := sender(t)
	to := openProcess(t, t.TempDir(), 2, Knobs{})
	defer func() { to.close() }()
	got := receiver(t, to, 5)
	send := func() {
		prepared, err := sm.PrepareSnapshot()
		require.NoError(t, err)
		var stream bytes.Buffer
		require.NoError(t, sm.SaveSnapshot(prepared, &stream, nil))
		require.NoError(t, got.RecoverFromSnapshot(bytes.NewReader(stream.Bytes()), nil))
	}
	_, err := got.replica.Subscribe(watch.Options{Epoch: 1, From: 1, Ready: func() {}})
	require.ErrorIs(t, err, shard.ErrUnavailable, "it does not know its shard yet")

	send()
	f := &follower{t: t, through: got.replica.View().Floor}
	f.follow(got.replica)
	from.put("k", "1")
	last := from.put("k", "2")
	send()
	require.NoError(t, f.until(last))
	require.Equal(t, []string{"1", "2"}, f.values)
	require.NoError(t, got.Close())
	require.ErrorIs(t, f.until(last+1), shard.ErrStopped)
}
