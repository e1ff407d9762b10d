package certfiles

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// world is an authority, and a server on loopback that answers every connection with "hello".
type world struct {
	t         *testing.T
	dir       string
	authority *Authority
	now       time.Time

	listener net.Listener
	mu       sync.Mutex
	rejected []error
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), now: time.Now()}
	w.authority = w.newAuthority("ca")
	return w
}

// newAuthority makes an authority whose certificate is in NAME.crt.
func (w *world) newAuthority(name string) *Authority {
	a, pair, err := NewAuthority(name, w.now.Add(-time.Hour), w.now.Add(time.Hour))
	require.NoError(w.t, err)
	require.NoError(w.t, pair.Write(w.path(name+".crt"), w.path(name+".key")))
	return a
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// issue writes NAME.crt and NAME.key, replacing what is there.
func (w *world) issue(a *Authority, name string, ends time.Time, hosts ...string) Files {
	pair, err := a.Issue(Subject{Name: name, Hosts: hosts, Begins: w.now.Add(-time.Hour), Ends: ends})
	require.NoError(w.t, err)
	f := Files{Cert: w.path(name + ".crt"), Key: w.path(name + ".key"), CA: w.path("ca.crt")}
	_ = os.Remove(f.Cert) // there may be none
	_ = os.Remove(f.Key)
	require.NoError(w.t, pair.Write(f.Cert, f.Key))
	return f
}

// serve serves until the test ends.
func (w *world) serve(cfg *tls.Config) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	l = Listen(l, cfg, func(_ net.Addr, err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.rejected = append(w.rejected, err)
	})
	w.listener = l // the last one, for call
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer c.Close()
				if _, err := c.Read(make([]byte, 1)); err == nil {
					_, _ = io.WriteString(c, "hello") // the client may be gone
				}
			})
		}
	})
	w.t.Cleanup(func() { l.Close(); served.Wait() })
}

// call connects and returns what the server says.
func (w *world) call(s *Source) (string, error) {
	c, err := s.Dial(w.t.Context(), w.listener.Addr().String(), dial)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.Write([]byte{1}); err != nil {
		return "", err
	}
	said, err := io.ReadAll(c)
	return string(said), err
}

func (w *world) requireHello(s *Source) {
	w.t.Helper()
	said, err := w.call(s)
	require.NoError(w.t, err)
	require.Equal(w.t, "hello", said)
}

// requireRejected waits until the server has told of a rejected connection, whose client got no answer.
func (w *world) requireRejected(s *Source, why string) {
	w.t.Helper()
	said, err := w.call(s)
	require.Error(w.t, err)
	require.Empty(w.t, said)
	w.requireTold(why)
}

func (w *world) requireTold(why string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.rejected) > 0
	}, 10*time.Second, time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	require.ErrorContains(w.t, w.rejected[0], why)
	w.rejected = nil
}

func (w *world) open(f Files) *Source {
	w.t.Helper()
	s, err := Open(f, slog.New(slog.DiscardHandler))
	require.NoError(w.t, err)
	return s
}

// C2: a certificate is renewed by replacing its files, on both sides.
func TestReplacedFilesAreUsed(t *testing.T) {
	w := newWorld(t)
	expired := w.now.Add(-time.Minute)
	server := w.open(w.issue(w.authority, "server", expired, "127.0.0.1"))
	client := w.open(w.issue(w.authority, "client", w.now.Add(time.Hour)))
	w.serve(server.Server())
	_, err := w.call(client)
	require.ErrorContains(t, err, "certificate has expired")
	w.requireTold("bad certificate")

	w.issue(w.authority, "server", w.now.Add(time.Hour), "127.0.0.1")
	w.requireHello(client)
	require.WithinDuration(t, w.now.Add(time.Hour), server.Ends(), time.Minute)

	w.issue(w.authority, "client", expired)
	w.requireRejected(client, "certificate has expired")
	w.issue(w.authority, "client", w.now.Add(2*time.Hour))
	w.requireHello(client)
}

// C1: while the files do not fit together, or are damaged or gone, the previous certificate stays in use.
func TestHalfReplacedFilesAreNotUsed(t *testing.T) {
	w := newWorld(t)
	files := w.issue(w.authority, "server", w.now.Add(time.Hour), "127.0.0.1")
	server := w.open(files)
	client := w.open(w.issue(w.authority, "client", w.now.Add(time.Hour)))
	w.serve(server.Server())
	w.requireHello(client)

	other := w.issue(w.authority, "other", w.now.Add(3*time.Hour), "127.0.0.1")
	cert, err := os.ReadFile(other.Cert)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(files.Cert, cert, 0o600)) // the key is still the old one's
	w.requireHello(client)
	require.WithinDuration(t, w.now.Add(time.Hour), server.Ends(), time.Minute)

	require.NoError(t, os.WriteFile(files.Cert, cert[:len(cert)/2], 0o600))
	w.requireHello(client)
	require.NoError(t, os.Remove(files.Cert))
	w.requireHello(client)

	key, err := os.ReadFile(other.Key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(files.Cert, cert, 0o600))
	require.NoError(t, os.WriteFile(files.Key, key, 0o600))
	w.requireHello(client)
	require.WithinDuration(t, w.now.Add(3*time.Hour), server.Ends(), time.Minute)
}

// C3: a client needs a certificate from the authority; an authority that is no longer in the file binds nobody.
func TestClientsNeedACertificate(t *testing.T) {
	w := newWorld(t)
	stranger := w.newAuthority("stranger")
	server := w.open(w.issue(w.authority, "server", w.now.Add(time.Hour), "127.0.0.1"))
	w.serve(server.Server())
	known := w.open(w.issue(w.authority, "known", w.now.Add(time.Hour)))
	w.requireHello(known)
	w.requireRejected(w.open(Files{CA: w.path("ca.crt")}), "client didn't provide a certificate")
	w.requireRejected(w.open(w.issue(stranger, "unknown", w.now.Add(time.Hour))), "unknown authority")

	trusted, err := os.ReadFile(w.path("stranger.crt"))
	require.NoError(t, err)
	authority := w.authority.PEM()
	require.NoError(t, os.WriteFile(w.path("both.crt"), bytes.Join([][]byte{authority, trusted}, nil), 0o600))
	both := w.open(Files{Cert: w.path("server.crt"), Key: w.path("server.key"), CA: w.path("both.crt")})
	w.serve(both.Server())
	w.requireHello(known)
	w.requireHello(w.open(Files{Cert: w.path("unknown.crt"), Key: w.path("unknown.key"), CA: w.path("ca.crt")}))
	require.NoError(t, os.WriteFile(w.path("both.crt"), trusted, 0o600))
	w.requireRejected(known, "unknown authority")
}

// Servers must be who they are asked for.
func TestServersAreVerified(t *testing.T) {
	w := newWorld(t)
	stranger := w.newAuthority("stranger")
	files := w.issue(w.authority, "server", w.now.Add(time.Hour), "n1.example.com")
	files.CA = ""
	w.serve(w.open(files).Server())
	client := w.open(Files{CA: w.path("ca.crt")})
	_, err := w.call(client)
	require.ErrorContains(t, err, "127.0.0.1")
	w.issue(stranger, "server", w.now.Add(time.Hour), "127.0.0.1")
	_, err = w.call(client)
	require.ErrorContains(t, err, "unknown authority")
	w.issue(w.authority, "server", w.now.Add(time.Hour), "127.0.0.1", "::1")
	w.requireHello(client)
}

// One authority may issue certificates for nodes and for clients. A client's does not open the nodes' port.
func TestAClientIsNoPeer(t *testing.T) {
	w := newWorld(t)
	node := w.open(w.issue(w.authority, "node", w.now.Add(time.Hour), "127.0.0.1"))
	client := w.open(w.issue(w.authority, "client", w.now.Add(time.Hour)))
	require.NoError(t, node.CheckServer())
	require.NoError(t, node.CheckClient())
	require.ErrorContains(t, client.CheckServer(), "does not include server authentication")
	require.NoError(t, client.CheckClient())
	w.serve(node.Peer())
	w.requireHello(node)
	w.requireRejected(client, "it is not a node's")
	w.requireRejected(w.open(Files{CA: w.path("ca.crt")}), "client didn't provide a certificate")
}

// C4: who speaks no TLS gets no further; HTTP is told why.
func TestWithoutTLS(t *testing.T) {
	w := newWorld(t)
	w.serve(w.open(w.issue(w.authority, "server", w.now.Add(time.Hour), "127.0.0.1")).Server())
	say := func(text string) string {
		c, err := net.Dial("tcp", w.listener.Addr().String())
		require.NoError(t, err)
		defer c.Close()
		_, err = io.WriteString(c, text)
		require.NoError(t, err)
		got, _ := io.ReadAll(c) // reset, if the server had not read everything
		return string(got)
	}
	require.Contains(t, say("GET /health HTTP/1.1\r\n\r\n"), "use https")
	w.requireTold("does not look like a TLS handshake")
	require.NotContains(t, say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "hello")
	w.requireTold("does not look like a TLS handshake")
	require.NotContains(t, say("\x00\xff\x00\xff\x00\xff\x00\xff"), "hello")
	w.requireTold("does not look like a TLS handshake")

	c, err := net.Dial("tcp", w.listener.Addr().String())
	require.NoError(t, err)
	require.NoError(t, c.Close()) // a look at whether the port is open is nobody's failure
	w.requireHello(w.open(Files{Cert: w.path("server.crt"), Key: w.path("server.key"), CA: w.path("ca.crt")}))
	require.Empty(t, w.rejected)
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	w := newWorld(t)
	good := w.issue(w.authority, "good", w.now.Add(time.Hour), "127.0.0.1")
	other := w.issue(w.authority, "other", w.now.Add(time.Hour), "127.0.0.1")
	require.NoError(t, os.WriteFile(w.path("empty"), nil, 0o600))
	for _, tc := range []struct {
		files Files
		why   string
	}{
		{Files{Cert: w.path("none"), Key: good.Key}, "none: no such file"},
		{Files{Cert: good.Cert}, "no such file"},
		{Files{Cert: good.Cert, Key: other.Key}, "private key does not match public key"},
		{Files{Cert: good.Cert, Key: good.Cert}, "found a certificate rather than a key"},
		{Files{CA: w.path("none")}, "none: no such file"},
		{Files{CA: w.path("empty")}, "has none (want PEM)"},
	} {
		_, err := Open(tc.files, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, tc.why)
	}
}

// An authority is used again from its files, and files are not overwritten.
func TestAuthorityOfFiles(t *testing.T) {
	w := newWorld(t)
	again, err := ReadAuthority(w.path("ca.crt"), w.path("ca.key"))
	require.NoError(t, err)
	pair, err := again.Issue(Subject{Name: "n", Hosts: []string{"localhost"}, Begins: w.now.Add(-time.Hour), Ends: w.now.Add(time.Hour)})
	require.NoError(t, err)
	require.ErrorContains(t, pair.Write(w.path("n.crt"), w.path("ca.key")), "is not overwritten")
	require.NoError(t, pair.Write(w.path("n.crt"), w.path("n.key")))
	info, err := os.Stat(w.path("n.key"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	leaf, err := tls.LoadX509KeyPair(w.path("n.crt"), w.path("n.key"))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(w.authority.PEM()))
	_, err = leaf.Leaf.Verify(x509.VerifyOptions{DNSName: "localhost", Roots: roots})
	require.NoError(t, err)
	_, err = ReadAuthority(w.path("n.crt"), w.path("n.key"))
	require.ErrorContains(t, err, "is not the certificate of one")
}

func dial(ctx context.Context, addr string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
}
