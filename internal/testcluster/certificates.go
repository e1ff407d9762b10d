package testcluster

import (
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/flotilla-kv/flotilla/internal/certfiles"
	"github.com/flotilla-kv/flotilla/node"
)

// Certificates is an authority, whose certificates are files in a directory that ends with the test.
type Certificates struct {
	authority *certfiles.Authority
	dir       string
}

// NewCertificates makes an authority.
func NewCertificates(tb testing.TB) *Certificates {
	tb.Helper()
	a, pair, err := certfiles.NewAuthority("test", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	c := &Certificates{authority: a, dir: tb.TempDir()}
	if err == nil {
		err = pair.Write(c.CA(), filepath.Join(c.dir, "ca.key"))
	}
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// CA is the file with the authority's certificate.
func (c *Certificates) CA() string { return filepath.Join(c.dir, "ca.crt") }

// Issue writes a certificate, over the one of that name. It is valid for so long from now; not any more if that is
// negative. One without hosts is a client's.
func (c *Certificates) Issue(tb testing.TB, name string, valid time.Duration, hosts ...string) certfiles.Files {
	tb.Helper()
	pair, err := c.authority.Issue(certfiles.Subject{Name: name, Hosts: hosts, Begins: time.Now().Add(-time.Hour), Ends: time.Now().Add(valid)})
	files := certfiles.Files{Cert: filepath.Join(c.dir, name+".crt"), Key: filepath.Join(c.dir, name+".key"), CA: c.CA()}
	if err == nil {
		err = os.WriteFile(files.Cert, pair.Cert, 0o600)
	}
	if err == nil {
		err = os.WriteFile(files.Key, pair.Key, 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

// IssueNode writes a node's certificates, for both of its ports, over those that it has.
func (c *Certificates) IssueNode(tb testing.TB, name string, valid time.Duration) (client, peer certfiles.Files) {
	tb.Helper()
	return c.Issue(tb, name, valid, "127.0.0.1"), c.Issue(tb, name+"-peer", valid, "127.0.0.1")
}

// Secure is an Options.Edit: nodes have TLS on all ports, and clients need a certificate.
func (c *Certificates) Secure(tb testing.TB) func(name string, cfg *node.Config) {
	return func(name string, cfg *node.Config) {
		cfg.ClientTLS, cfg.PeerTLS = c.IssueNode(tb, name, time.Hour)
	}
}

// NameUsers is Secure, and clients' certificates name their users.
func (c *Certificates) NameUsers(tb testing.TB) func(name string, cfg *node.Config) {
	secure := c.Secure(tb)
	return func(name string, cfg *node.Config) {
		secure(name, cfg)
		cfg.ClientCertAuth = true
	}
}

// Config is the TLS configuration of a client with the files.
func Config(tb testing.TB, files certfiles.Files) *tls.Config {
	tb.Helper()
	s, err := certfiles.Open(files, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	return s.Client("")
}
