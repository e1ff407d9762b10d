package certfiles

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Source makes TLS configurations of files.
type Source struct {
	files Files
	log   *slog.Logger

	mu struct {
		sync.Mutex
		seen    state // of current, or of the last failure
		current *content
	}
}

// Open reads the files. Its error says which of them is wrong.
func Open(files Files, log *slog.Logger) (*Source, error) {
	s := &Source{files: files, log: log}
	s.mu.seen = files.look()
	c, err := files.load()
	if err != nil {
		return nil, err
	}
	s.mu.current = c
	return s, nil
}

// CheckServer returns an error if clients would refuse the certificate for what it is bound to, whatever their
// authorities.
func (s *Source) CheckServer() error {
	return s.check(x509.ExtKeyUsageServerAuth, "server authentication")
}

// CheckClient is CheckServer for the other direction.
func (s *Source) CheckClient() error {
	return s.check(x509.ExtKeyUsageClientAuth, "client authentication")
}

func (s *Source) check(use x509.ExtKeyUsage, name string) error {
	if err := allows(s.now().cert.Leaf, use, name); err != nil {
		return fmt.Errorf("the certificate %s cannot be used: %w", s.files.Cert, err)
	}
	return nil
}

// Ends returns when the certificate expires; zero without one.
func (s *Source) Ends() time.Time { return s.now().ends }

// now returns what the files contain (C1, C2).
func (s *Source) now() *content {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The state is taken before the files are read. If they change meanwhile, the next call reads them again.
	seen := s.files.look()
	if seen == s.mu.seen {
		return s.mu.current
	}
	s.mu.seen = seen
	c, err := s.files.load()
	if err != nil {
		s.log.Warn("certificate files have changed but cannot be used; the previous ones stay in use", "error", err)
		return s.mu.current
	}
	s.log.Info("certificate files have been read again", "cert", s.files.Cert, "expires", c.ends)
	s.mu.current = c
	return c
}

// Server returns the configuration of a server that speaks the given protocols (ALPN). With authorities in the files,
// clients need a certificate from them.
func (s *Source) Server(protocols ...string) *tls.Config {
	return s.server(func(cfg *tls.Config) { cfg.NextProtos = protocols })
}

// Peer returns the configuration of a server for others like it. Their certificates must be from the authorities in
// the files, and good for servers: one authority may serve for nodes and clients, and a client is no node.
func (s *Source) Peer() *tls.Config {
	return s.server(func(cfg *tls.Config) {
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			return allows(state.PeerCertificates[0], x509.ExtKeyUsageServerAuth, "server authentication, so it is not a node's")
		}
	})
}

func (s *Source) server(edit func(*tls.Config)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			c := s.now()
			// A resumed session would be as old as its first handshake (C3). Connections last long, so there is
			// little to gain.
			cfg := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*c.cert}, SessionTicketsDisabled: true}
			if c.cas != nil {
				cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, c.cas
			}
			edit(cfg)
			return cfg, nil
		},
	}
}

// Client returns the configuration of a client that connects to a host now. Without one, whoever uses the configuration
// adds it, as gRPC does.
func (s *Source) Client(host string) *tls.Config {
	c := s.now()
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.cas, ServerName: host}
	if c.cert != nil {
		// It is shown whatever authorities the server trusts. Then the server's error names the one that it does not.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.cert, nil }
	}
	return cfg
}

// Dial connects to host:port by means of dial, and returns when the handshake is done. The host must be in the other
// side's certificate.
func (s *Source) Dial(ctx context.Context, addr string, dial func(ctx context.Context, addr string) (net.Conn, error)) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %q: %w", addr, err)
	}
	raw, err := dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, s.Client(host))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("begin TLS with %s: %w", addr, err)
	}
	return conn, nil
}
