package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/flotilla-kv/flotilla/internal/certfiles"
)

// secured is a port's TLS; nil for a port without.
type secured struct {
	source *certfiles.Source
	server *tls.Config // of the port's connections
	log    *slog.Logger
	failed prometheus.Counter

	mu struct {
		sync.Mutex
		logged time.Time // when a failed handshake was last logged
		silent int       // failed since then
	}
}

// handshakesLogged is how often a failed handshake is logged: whoever can connect can make one.
const handshakesLogged = 10 * time.Second

// readCertificates reads the certificates before anything listens.
func (n *Node) readCertificates(context.Context) (err error) {
	if n.cfg.ClientTLS.Cert != "" {
		if n.clientTLS, err = n.secure("client", n.cfg.ClientTLS, (*certfiles.Source).CheckServer); err != nil {
			return fmt.Errorf("--cert-file, --key-file, --trusted-ca-file: %w", err)
		}
		// gRPC's clients offer only h2. Whoever also knows HTTP/1.1, as curl and browsers do, is to speak that, because on
		// HTTP/2 this port serves only gRPC.
		n.clientTLS.server = n.clientTLS.source.Server("http/1.1", "h2")
	}
	if n.cfg.PeerTLS.Cert != "" {
		if n.peerTLS, err = n.secure("peer", n.cfg.PeerTLS, (*certfiles.Source).CheckServer, (*certfiles.Source).CheckClient); err != nil {
			return fmt.Errorf("--peer-cert-file, --peer-key-file, --peer-trusted-ca-file: %w", err)
		}
		n.peerTLS.server = n.peerTLS.source.Peer()
	}
	return nil
}

func (n *Node) secure(port string, files certfiles.Files, checks ...func(*certfiles.Source) error) (*secured, error) {
	s := &secured{log: n.log.With("port", port)}
	var err error
	if s.source, err = certfiles.Open(files, s.log); err != nil {
		return nil, err
	}
	for _, check := range checks {
		if err := check(s.source); err != nil {
			return nil, err
		}
	}
	f := promauto.With(prometheus.WrapRegistererWith(prometheus.Labels{"port": port}, n.cfg.Registerer))
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "flotilla_certificate_expires_seconds",
		Help: "When the port's certificate expires, in Unix time. Afterwards nobody can connect. Replace its files before: the node reads them again by itself.",
	}, func() float64 { return float64(s.source.Ends().Unix()) })
	s.failed = f.NewCounter(prometheus.CounterOpts{
		Name: "flotilla_tls_handshakes_failed_total",
		Help: "Connections to the port that were refused in the TLS handshake: they spoke no TLS, did not trust the node's certificate, or had none that the node trusts. The node's log has the reasons.",
	})
	return s, nil
}

// listen adds the handshake to the connections of a listener.
func (s *secured) listen(l net.Listener) net.Listener {
	if s == nil {
		return l
	}
	return certfiles.Listen(l, s.server, s.rejected)
}

func (s *secured) rejected(remote net.Addr, err error) {
	s.failed.Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.mu.logged) < handshakesLogged {
		s.mu.silent++
		return
	}
	s.log.Warn("a connection failed in the TLS handshake", "remote", remote, "error", err, "others_since_last", s.mu.silent)
	s.mu.logged, s.mu.silent = time.Now(), 0
}

// scheme is what URLs of the port begin with.
func (s *secured) scheme() string {
	if s == nil {
		return "http://"
	}
	return "https://"
}

// dialPeer opens a connection to a node's peer address.
func (n *Node) dialPeer(ctx context.Context, addr string) (net.Conn, error) {
	if n.peerTLS == nil {
		return n.cfg.Dial(ctx, addr)
	}
	return n.peerTLS.source.Dial(ctx, addr, n.cfg.Dial)
}

// validateTLS reports certificates of which a part is missing.
func (c Config) validateTLS() error {
	client, peer := c.ClientTLS, c.PeerTLS
	switch {
	case (client.Cert == "") != (client.Key == ""):
		return errors.New("--cert-file and --key-file are given together: a certificate and its private key")
	case client.CA != "" && client.Cert == "":
		return errors.New("--trusted-ca-file verifies clients' certificates, which takes TLS: give --cert-file and --key-file")
	case c.ClientCertAuth && client.CA == "":
		return errors.New("--client-cert-auth needs --trusted-ca-file: the certificates of the authorities that clients' certificates come from")
	case peer != certfiles.Files{} && (peer.Cert == "" || peer.Key == "" || peer.CA == ""):
		return errors.New("--peer-cert-file, --peer-key-file and --peer-trusted-ca-file are given together: nodes show each other certificates from an authority of their own")
	}
	return nil
}
