package cmd

import (
	"bytes"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// screen is a terminal's end of what is written to it.
type screen struct {
	sync.Mutex
	bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.Lock()
	defer s.Unlock()
	return s.Buffer.Write(p)
}

func TestBars(t *testing.T) {
	for name, c := range map[string]struct {
		stages []stage
		done   bool
		want   string
	}{
		"with a number":    {[]stage{{state: "n3 is not draining yet"}, {state: "n3 leads 2 shards", left: 2}, {state: "n3 leads 0 shards", done: true}}, true, "n3 leads 0 shards"},
		"without a number": {[]stage{{}, {state: "operator 7: STARTED"}, {state: "operator 7 has ended", done: true}}, true, "operator 7 has ended"},
		"that fails":       {[]stage{{state: "n3 leads 2 shards", left: 2}}, false, "fail"},
		"of nothing":       {nil, false, "fail"},
		"that waits":       {[]stage{{state: "n3 leads 1 shard", left: 1, waits: []string{"shard 3 is locked"}}}, false, "shard 3 is locked"},
	} {
		t.Run(name, func(t *testing.T) {
			var s screen
			b := newBar(&s)
			for _, stage := range c.stages {
				b.show(stage)
			}
			b.end(c.done)
			require.Contains(t, s.String(), c.want)
		})
	}
}

func TestLinesOfProgress(t *testing.T) {
	var out bytes.Buffer
	f := newFollower(&out) // no terminal
	for _, s := range []stage{{}, {state: "one"}, {state: "one"}, {state: "two", done: true}} {
		f.show(s)
	}
	f.end(true)
	require.Equal(t, "one\ntwo\n", out.String())
}

// What does not get on says why, once as long as that is the same, and not before it has not got on
// for a while.
func TestWhatIsWaitedFor(t *testing.T) {
	var out bytes.Buffer
	var p patience
	f := newFollower(&out)
	look := func(times int, s stage) string {
		out.Reset()
		for range times {
			f.show(p.temper(s))
		}
		return out.String()
	}
	full, locked := []string{"n4 is full"}, []string{"n4 is full", "shard 2 is locked"}
	require.Equal(t, "4 left\n", look(stuckLooks, stage{state: "4 left", waits: full}))
	require.Equal(t, "waiting: n4 is full\n", look(1, stage{state: "4 left", waits: full}))
	require.Empty(t, look(3*stuckLooks, stage{state: "4 left", waits: full}))
	require.Equal(t, "waiting: n4 is full\nwaiting: shard 2 is locked\n", look(stuckLooks, stage{state: "4 left", waits: locked}))
	require.Equal(t, "3 left\n", look(stuckLooks, stage{state: "3 left", waits: locked}))
	require.Equal(t, "waiting: n4 is full\nwaiting: shard 2 is locked\n", look(1, stage{state: "3 left", waits: locked}))
	require.Equal(t, "0 left\n", look(1, stage{state: "0 left", done: true}))
}

// A node is empty when it has no shard left to lose and another leads the meta group.
func TestWhenANodeIsEmpty(t *testing.T) {
	for _, c := range []struct {
		of    nodeState
		left  *adminpb.Emptying
		state string
		done  bool
	}{
		{nodeState{loses: "leads"}, &adminpb.Emptying{Shards: 2, MetaGroup: "leads"}, "n1 leads 2 shards, and leads the meta group", false},
		{nodeState{loses: "leads"}, &adminpb.Emptying{MetaGroup: "leads"}, "n1 leads 0 shards, and leads the meta group", false},
		{nodeState{loses: "leads"}, &adminpb.Emptying{MetaGroup: "unknown"}, "n1 leads 0 shards, and who leads the meta group is not known", false},
		{nodeState{loses: "leads"}, &adminpb.Emptying{}, "n1 leads 0 shards", true},
		{nodeState{loses: "holds"}, &adminpb.Emptying{Shards: 4}, "n1 holds 4 shards", false},
		{nodeState{loses: "holds"}, &adminpb.Emptying{Shards: 1}, "n1 holds 1 shard", false},
	} {
		got := c.of.stage(&adminpb.Node{Name: "n1", Emptying: c.left})
		require.Equal(t, []any{c.state, c.done}, []any{got.state, got.done})
	}
}
