package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/ports"
	"github.com/flotilla-kv/flotilla/tools/flotilla/cmd"
)

// The flag package wants its variables before the tests run; nothing else changes it.
var etcdctlFlag = flag.String("etcdctl", "", "also run the README's etcdctl commands, with this binary; \"build\" builds it")

const (
	readmePath = "../../README.md"
	// patience is long because other tests may share the machine.
	patience = 90 * time.Second
)

// TestReadmeCommands runs what the README tells its readers to run, in its order, and
// wants each command's output to contain what its comment promises. flotilla runs
// inside the test, on other ports; curl is done by net/http; etcdctl only when
// -etcdctl names one.
func TestReadmeCommands(t *testing.T) {
	text, err := os.ReadFile(readmePath)
	require.NoError(t, err)
	commands := readCommands(string(text))
	require.NotEmpty(t, commands)
	r := &reader{t: t, etcdctl: etcdctl(t), dataDir: t.TempDir()}
	r.nodes.ctx, r.nodes.stop = context.WithCancel(t.Context())
	t.Cleanup(func() {
		r.stopNodes()
		r.releasePorts()
	})
	for _, c := range commands {
		r.run(c)
	}
	require.NotZero(t, r.done["curl"])
	require.NotZero(t, r.done["flotilla"])
	require.NotZero(t, r.done["flotilla client"])
	if *etcdctlFlag == "" {
		t.Logf("%d etcdctl commands were read but not run; -etcdctl=build runs them", r.done["etcdctl"])
	}
}

// command is one line of the README's shell blocks.
type command struct {
	text       string
	words      []string
	want       string // what its output must contain: the comment at its end
	background bool
}

// readCommands takes the commands out of the fenced blocks marked sh.
func readCommands(readme string) []command {
	var out []command
	shell := false
	for line := range strings.Lines(readme) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```"):
			shell = line == "```sh"
		case shell && line != "":
			text, want, _ := strings.Cut(line, "    # ")
			text, want = strings.TrimSpace(text), strings.TrimSpace(want)
			c := command{text: text, words: split(text), want: want}
			if n := len(c.words); c.words[n-1] == "&" {
				c.words, c.background = c.words[:n-1], true
			}
			out = append(out, c)
		}
	}
	return out
}

// split cuts a command into words as a shell does, as far as the README needs: spaces
// and single quotes.
func split(text string) []string {
	var words []string
	for i, part := range strings.Split(text, "'") {
		if i%2 == 1 { // inside quotes: a word of its own
			words = append(words, part)
			continue
		}
		words = append(words, strings.Fields(part)...)
	}
	return words
}

// reader does what the README says.
type reader struct {
	t       *testing.T
	etcdctl string // "" when there is none
	dataDir string
	done    map[string]int // commands by program

	base   int // the port that stands for the README's 2379; 0 before a cluster runs
	leased []*ports.Port
	moved  *strings.Replacer // the README's addresses by those of the test
	nodes  struct {
		ctx     context.Context
		stop    context.CancelFunc
		running sync.WaitGroup
		outputs []*output
	}
}

func (r *reader) run(c command) {
	r.t.Helper()
	program, rest := c.words[0], c.words[1:]
	name := filepath.Base(program)
	switch {
	case slices.Equal(c.words, []string{"go", "test", "-timeout", "30m", "./..."}):
		// This test is part of it; that CI runs exactly this is what can be checked.
		script, err := os.ReadFile("../../.ci/run")
		require.NoError(r.t, err)
		require.Contains(r.t, "\n"+string(script), "\n"+c.text+"\n")
	case slices.Equal(c.words, []string{"go", "build", "-o", "flotilla", "./tools/flotilla"}):
		// What it would build is the package this test is in.
	case len(c.words) > 3 && slices.Equal(c.words[:3], []string{"go", "run", "./tools/flotilla"}):
		name, rest = "flotilla", c.words[3:]
		r.flotilla(c, rest)
	case program == "./flotilla" && rest[0] == "start":
		r.flotilla(c, rest)
	case program == "./flotilla":
		name = "flotilla client"
		r.client(c, rest)
	case program == "export":
		key, value, _ := strings.Cut(rest[0], "=")
		if r.base == 0 || strings.HasPrefix(key, "FLOTILLA_") && key != "FLOTILLA_ENDPOINTS" {
			r.newCluster()
		}
		r.t.Setenv(key, r.moved.Replace(value))
	case program == "curl":
		r.waitReady()
		require.Contains(r.t, r.curl(rest), c.want, c.text)
	case program == "etcdctl":
		require.NotEmpty(r.t, c.want, "%s: the README must say what it answers", c.text)
		if r.etcdctl != "" {
			r.waitReady()
			out, err := exec.CommandContext(r.t.Context(), r.etcdctl, rest...).CombinedOutput()
			require.NoError(r.t, err, "%s\n%s", c.text, out)
			require.Contains(r.t, string(out), c.want, c.text)
		}
	default:
		r.t.Fatalf("the README has a command that this test does not know how to run: %s", c.text)
	}
	if r.done == nil {
		r.done = make(map[string]int)
	}
	r.done[name]++
}

// newCluster stops what runs and chooses ports for what comes next, once for each
// cluster: the nodes of one are started after each other.
func (r *reader) newCluster() {
	if r.base != 0 && len(r.nodes.outputs) == 0 {
		return
	}
	r.stopNodes()
	r.nodes.ctx, r.nodes.stop = context.WithCancel(r.t.Context())
	r.leaseBase()
}

// leaseBase chooses a base that is free with all the ports that go with it. They are as far from each other as in the
// README where demo computes them by itself, and all low enough to be leased.
func (r *reader) leaseBase() {
	r.t.Helper()
	distances := map[int]int{2379: 0, 2380: 1, 22379: 20000, 22380: 20001, 32379: 30000, 32380: 30001, 42379: 10000, 42380: 10001}
	for range 100 {
		r.base = 1100 + rand.IntN(ports.Below-30001-1100)
		if r.lease(slices.Collect(maps.Values(distances))) {
			var pairs []string
			for p, d := range distances {
				pairs = append(pairs, fmt.Sprintf("127.0.0.1:%d", p), fmt.Sprintf("127.0.0.1:%d", r.base+d))
			}
			r.moved = strings.NewReplacer(pairs...)
			return
		}
	}
	r.t.Fatal("no eight free ports were found")
}

// lease takes the ports at these distances from the base, or none, instead of those it had.
func (r *reader) lease(distances []int) bool {
	r.releasePorts()
	for _, d := range distances {
		p, ok := ports.Try(r.base + d)
		if !ok {
			r.releasePorts()
			return false
		}
		r.leased = append(r.leased, p)
	}
	return true
}

func (r *reader) releasePorts() {
	r.t.Helper()
	for _, p := range r.leased {
		require.NoError(r.t, p.Release())
	}
	r.leased = nil
}

func (r *reader) stopNodes() {
	r.nodes.stop()
	r.nodes.running.Wait()
	r.nodes.outputs = nil
}

// flotilla runs the binary's own code with the command's arguments, in the background.
func (r *reader) flotilla(c command, args []string) {
	r.t.Helper()
	if args[0] == "demo" {
		r.newCluster()
		args = append(args, fmt.Sprintf("--port=%d", r.base))
	} else {
		require.True(r.t, c.background, "%s: a node goes on; end the line with &", c.text)
	}
	for i, arg := range args {
		if i > 0 && args[i-1] == "--data-dir" {
			arg = filepath.Join(r.dataDir, arg)
		}
		args[i] = r.moved.Replace(arg)
	}
	out := &output{ready: make(chan struct{}), ended: make(chan struct{})}
	r.nodes.outputs = append(r.nodes.outputs, out)
	ctx := r.nodes.ctx
	r.nodes.running.Go(func() {
		out.code = cmd.Run(ctx, args, out, out)
		close(out.ended)
	})
}

// client runs a client command to its end.
func (r *reader) client(c command, args []string) {
	r.t.Helper()
	r.waitReady()
	var out bytes.Buffer
	require.Zero(r.t, cmd.Run(r.t.Context(), args, &out, &out), "%s\n%s", c.text, &out)
	require.NotEmpty(r.t, c.want, "%s: the README must say what it answers", c.text)
	require.Contains(r.t, out.String(), c.want, c.text)
}

// waitReady returns when every node that was started serves.
func (r *reader) waitReady() {
	r.t.Helper()
	late := time.After(patience)
	for _, out := range r.nodes.outputs {
		select {
		case <-out.ready:
		case <-out.ended:
			r.t.Fatalf("flotilla ended with %d:\n%s", out.code, out)
		case <-late:
			r.t.Fatalf("flotilla is not ready after %s:\n%s", patience, out)
		}
	}
}

// curl makes the request of the command: a GET of the URL, or a POST of what -d gives.
func (r *reader) curl(args []string) string {
	r.t.Helper()
	method, url, body := http.MethodGet, "", ""
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "-d":
			i++
			method, body = http.MethodPost, args[i]
		case strings.HasPrefix(args[i], "http://") && url == "":
			url = r.moved.Replace(args[i])
		default:
			r.t.Fatalf("curl %v: %q is nothing this test knows", args, args[i])
		}
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, url, strings.NewReader(body))
	require.NoError(r.t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	return string(data)
}

// output collects what a node prints and tells when it is ready.
type output struct {
	ready chan struct{}
	ended chan struct{}
	code  int // valid once ended is closed

	mu    sync.Mutex
	text  bytes.Buffer
	found bool
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	// The log says the same as stdout, but not for all nodes of a demo at once.
	if !o.found && !bytes.HasPrefix(p, []byte("time=")) && bytes.Contains(p, []byte("ready to serve client requests")) {
		o.found = true
		close(o.ready)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// etcdctl returns the binary that -etcdctl asks for, "" for none.
func etcdctl(t *testing.T) string {
	t.Helper()
	if *etcdctlFlag != "build" {
		return *etcdctlFlag
	}
	path := filepath.Join(t.TempDir(), "etcdctl")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "go.etcd.io/etcd/etcdctl/v3")
	build.Dir = "../../benchmarks/etcd"
	out, err := build.CombinedOutput()
	require.NoError(t, err, "build etcdctl: %s", out)
	return path
}

func TestCommandsAreReadAsAShellWould(t *testing.T) {
	got := readCommands("text\n```sh\ncurl http://h/v3 -d '{\"a\": 1}'    # \"ok\": true\n./flotilla start --name n1 &\n```\n```\nnot this\n```\n")
	require.Equal(t, []command{
		{text: `curl http://h/v3 -d '{"a": 1}'`, words: []string{"curl", "http://h/v3", "-d", `{"a": 1}`}, want: `"ok": true`},
		{text: "./flotilla start --name n1 &", words: []string{"./flotilla", "start", "--name", "n1"}, background: true},
	}, got)
}
