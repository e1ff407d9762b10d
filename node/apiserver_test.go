package node_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/ports"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// The flag package wants its variables before the tests run; nothing else changes it.
var apiServerFlag = flag.String("apiserver", "", "a kube-apiserver that TestKubeAPIServer runs")

// TestKubeAPIServer runs Kubernetes' own API server on a cluster whose shards are split and merged and whose nodes
// restart, while clients of the API increment counters over the version they have read, as controllers do, and
// another keeps a copy by list and watch. No increment may be lost or made twice, and the copy sees each exactly once.
func TestKubeAPIServer(t *testing.T) {
	if *apiServerFlag == "" {
		t.Log("-apiserver is not set: no API server is run")
		return
	}
	c := testcluster.Start(t, testcluster.Options{Splits: "/registry/configmaps/shop/c4,/registry/events"})
	api := startAPIServer(t, *apiServerFlag, c.Endpoints())
	api.must(t, http.MethodPost, "/api/v1/namespaces", object{Metadata: meta{Name: "shop"}})
	for i := range counters {
		api.must(t, http.MethodPost, configMaps, counter(i, 0))
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var work sync.WaitGroup
	var acked, unknown [counters]atomic.Int64
	done := func() (sum int64) {
		for i := range acked {
			sum += acked[i].Load()
		}
		return sum
	}
	for w := range 8 {
		work.Go(func() {
			for n := w; ctx.Err() == nil; n++ {
				i := n % counters
				switch made, err := api.increment(t.Context(), i); { // ended by nobody: what is left under way would be made after the last list
				case made:
					acked[i].Add(1)
				case err != nil:
					unknown[i].Add(1)
				}
			}
		})
	}
	watching, leave := context.WithCancel(t.Context())
	defer leave()
	var follows sync.WaitGroup
	copied := api.follow(t, watching, &follows)
	more := func() {
		t.Helper()
		before := done()
		testcluster.Until(t, "more increments", func() bool { return done() > before+100 })
	}
	const border = "/registry/configmaps/shop/c2"
	more()
	splitAt(t, c.Node(1), border)
	more()
	for _, n := range c.Nodes() {
		n.Restart(t)
		more()
	}
	mergeAt(t, c, c.Node(2), border)
	more()
	stop()
	work.Wait()

	final := make(map[string]int64)
	all, _ := api.list(t)
	for _, o := range all {
		final[o.Metadata.Name] = o.count()
	}
	total := int64(0)
	for i := range counters {
		have := final[counter(i, 0).Metadata.Name]
		total += have
		require.GreaterOrEqual(t, have, acked[i].Load(), "an acknowledged increment of counter %d is lost", i)
		require.LessOrEqual(t, have, acked[i].Load()+unknown[i].Load(), "an increment of counter %d was made twice", i)
	}
	testcluster.Eventually(t, "the copy to be complete", func(context.Context) error { return copied.has(final) })
	leave()
	follows.Wait()
	t.Logf("%d increments, %d acknowledged", total, done())
}

const (
	counters   = 8
	configMaps = "/api/v1/namespaces/shop/configmaps"
	apiToken   = "a-token-for-tests"
)

type meta struct {
	Name            string `json:"name,omitempty"`
	ResourceVersion string `json:"resourceVersion,omitempty"`
	Continue        string `json:"continue,omitempty"`
}

// object is as much of any object, and of a list of them, as the test looks at.
type object struct {
	Metadata meta              `json:"metadata"`
	Data     map[string]string `json:"data,omitempty"`
	Items    []object          `json:"items,omitempty"`
}

func counter(i int, n int64) object {
	return object{Metadata: meta{Name: "c" + strconv.Itoa(i)}, Data: map[string]string{"n": strconv.FormatInt(n, 10)}}
}

func (o object) count() int64 {
	n, err := strconv.ParseInt(o.Data["n"], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

type apiServer struct {
	url    string
	client *http.Client
}

// startAPIServer returns when the server says that it is ready, and stops it at the end of the test.
func startAPIServer(t *testing.T, path string, endpoints []string) *apiServer {
	t.Helper()
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	keyFile, tokens := filepath.Join(dir, "key.pem"), filepath.Join(dir, "tokens.csv")
	encoded := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	require.NoError(t, os.WriteFile(keyFile, encoded, 0o600))
	require.NoError(t, os.WriteFile(tokens, []byte(apiToken+",admin,1,system:masters\n"), 0o600))
	port, err := ports.Lease()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, port.Release()) })
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = log.Close() })
	cmd := exec.CommandContext(t.Context(), path, "--etcd-servers=http://"+strings.Join(endpoints, ",http://"),
		"--etcd-compaction-interval=3s", "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port.Number()),
		"--cert-dir="+dir, "--service-account-issuer=https://127.0.0.1", "--service-account-key-file="+keyFile,
		"--service-account-signing-key-file="+keyFile, "--token-auth-file="+tokens, "--authorization-mode=AlwaysAllow",
		"--service-cluster-ip-range=10.0.0.0/24")
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // its own certificate of a minute ago
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		transport.CloseIdleConnections()
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("the API server's log:\n%s", said[max(0, len(said)-20_000):])
		}
	})
	a := &apiServer{url: "https://" + port.Addr(), client: &http.Client{Transport: transport}}
	testcluster.Eventually(t, "the API server to be ready", func(ctx context.Context) error {
		_, err := a.do(ctx, http.MethodGet, "/readyz", nil, nil)
		return err
	})
	return a
}

// do returns an error unless the status is one of success.
func (a *apiServer) do(ctx context.Context, method, path string, body, answer any) (status int, err error) {
	resp, err := a.send(ctx, method, path, body)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return resp.StatusCode, err
	case resp.StatusCode/100 != 2:
		return resp.StatusCode, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, said)
	case answer == nil:
		return resp.StatusCode, nil
	}
	return resp.StatusCode, json.Unmarshal(said, answer)
}

func (a *apiServer) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, bytes.NewReader(encoded))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+apiToken)
	req.Header.Set("Content-Type", "application/json")
	return a.client.Do(req)
}

func (a *apiServer) must(t *testing.T, method, path string, body any) {
	t.Helper()
	_, err := a.do(t.Context(), method, path, body, nil)
	require.NoError(t, err)
}

// increment reports whether it was acknowledged. Without an error it was certainly not made otherwise.
func (a *apiServer) increment(ctx context.Context, i int) (made bool, err error) {
	var o object
	path := fmt.Sprintf("%s/c%d", configMaps, i)
	if _, err := a.do(ctx, http.MethodGet, path, nil, &o); err != nil {
		return false, nil //nolint:nilerr // nothing was asked for yet
	}
	next := counter(i, o.count()+1)
	next.Metadata.ResourceVersion = o.Metadata.ResourceVersion
	status, err := a.do(ctx, http.MethodPut, path, next, nil)
	if status == http.StatusConflict {
		return false, nil
	}
	return err == nil, err
}

// list returns all objects and the version of all of its pages.
func (a *apiServer) list(t *testing.T) (all []object, version string) {
	t.Helper()
	testcluster.Eventually(t, "a list", func(ctx context.Context) error {
		all = nil
		for after := ""; ; {
			var page object
			query := url.Values{"limit": {"3"}, "continue": {after}}
			if _, err := a.do(ctx, http.MethodGet, configMaps+"?"+query.Encode(), nil, &page); err != nil {
				return err // the list is begun again: its version may be compacted by now
			}
			all = append(all, page.Items...)
			version = page.Metadata.ResourceVersion
			if after = page.Metadata.Continue; after == "" {
				return nil
			}
		}
	})
	return all, version
}

// objectCopy keeps a copy of the counters.
type objectCopy struct {
	api     *apiServer
	version string

	mu struct {
		sync.Mutex
		counts map[string]int64
		err    error
	}
}

// follow lists, and then watches until ctx ends.
func (a *apiServer) follow(t *testing.T, ctx context.Context, work *sync.WaitGroup) *objectCopy {
	t.Helper()
	f := &objectCopy{api: a}
	f.mu.counts = make(map[string]int64)
	all, version := a.list(t)
	f.version = version
	for _, o := range all {
		f.mu.counts[o.Metadata.Name] = o.count()
	}
	work.Go(func() {
		for ctx.Err() == nil {
			if err := f.watch(ctx); err != nil {
				f.mu.Lock()
				f.mu.err = err
				f.mu.Unlock()
				return
			}
		}
	})
	return f
}

// watch returns without an error when it is to be asked for again: the server has ended the watch or is not ready.
func (f *objectCopy) watch(ctx context.Context) error {
	query := url.Values{"watch": {"1"}, "allowWatchBookmarks": {"1"}, "resourceVersion": {f.version}}
	resp, err := f.api.send(ctx, http.MethodGet, configMaps+"?"+query.Encode(), nil)
	if err != nil {
		return nil //nolint:nilerr // nothing was missed
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusGone:
		return errors.New("the version of the copy is compacted")
	default:
		return nil
	}
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil //nolint:nilerr // what came in part comes again
		}
		var e struct {
			Type   string `json:"type"`
			Object object `json:"object"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read an event %q: %w", line, err)
		}
		if err := f.take(e.Type, e.Object); err != nil {
			return fmt.Errorf("%w: %s", err, line)
		}
	}
}

func (f *objectCopy) take(kind string, o object) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch kind {
	case "BOOKMARK":
	case "MODIFIED":
		if before := f.mu.counts[o.Metadata.Name]; o.count() != before+1 {
			return fmt.Errorf("%s went from %d to %d", o.Metadata.Name, before, o.count())
		}
		f.mu.counts[o.Metadata.Name] = o.count()
	default:
		return errors.New("an event of what nobody does")
	}
	f.version = o.Metadata.ResourceVersion
	return nil
}

// has returns nil if the copy is the state that is given.
func (f *objectCopy) has(state map[string]int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.err == nil && !maps.Equal(state, f.mu.counts) {
		return fmt.Errorf("the copy is %v, the list %v", f.mu.counts, state)
	}
	return f.mu.err
}
