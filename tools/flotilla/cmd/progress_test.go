package cmd

import (
	"bytes"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
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
