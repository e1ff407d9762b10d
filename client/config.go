package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// Config configures a client. Only Endpoints is required.
type Config struct {
	// Endpoints are client addresses of nodes, host:port or http(s)://host:port. One that answers
	// is enough, because it supplies the others.
	Endpoints []string
	// TLS is used for every node. Default: none, unless an address begins with https.
	TLS *tls.Config
	// Username and Password are of the user for whom the client acts, where authentication is enabled. The client logs in
	// when it first needs to, and again when a node refuses its token. They are sent as they are: use TLS. If an endpoint is https, nodes without TLS are not
	// spoken to. Default: nobody,
	// or whom the certificate of TLS names, if nodes go by it.
	Username, Password string
	// Backoff paces the attempts to connect to a node that is down.
	Backoff Backoff
	// Dial opens connections. Default: TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Logger logs changes of connectivity. Default: nothing is logged.
	Logger *slog.Logger
	// Registerer registers the metrics. Default: nothing is counted. Clients of one process cannot share it, and it
	// keeps the metrics of a client that is closed.
	Registerer prometheus.Registerer
	// TracerProvider creates a span for every operation. Default: none.
	TracerProvider trace.TracerProvider
}

// Backoff is a pause that grows from Min to Max.
type Backoff struct {
	// Min is the first pause. Default 50 ms.
	Min time.Duration
	// Max is the longest pause. Default 1 s: a node that returns is found within it.
	Max time.Duration
}

func (c Config) withDefaults() Config {
	if c.Backoff.Min == 0 {
		c.Backoff.Min = 50 * time.Millisecond
	}
	if c.Backoff.Max == 0 {
		c.Backoff.Max = max(time.Second, c.Backoff.Min)
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports what is wrong and how to fix it.
func (c Config) Validate() error {
	if len(c.Endpoints) == 0 {
		return errors.New("the client needs the address of a node: Endpoints: []string{\"127.0.0.1:2379\"}")
	}
	for _, e := range c.Endpoints {
		if _, err := parseEndpoint(e); err != nil {
			return err
		}
	}
	if c.Password != "" && c.Username == "" {
		return errors.New("the client has a Password but no Username: give both")
	}
	if c.Backoff.Min < 0 || c.Backoff.Max < 0 {
		return fmt.Errorf("the client's Backoff is from %s to %s; pauses are not negative", c.Backoff.Min, c.Backoff.Max)
	}
	return nil
}

// asksForTLS reports whether an endpoint does.
func (c Config) asksForTLS() bool {
	return slices.ContainsFunc(c.Endpoints, func(s string) bool {
		e, err := parseEndpoint(s)
		return err == nil && e.secure
	})
}

// endpoint is the address of a node.
type endpoint struct {
	addr   string // host:port
	secure bool   // it asks for TLS
}

func parseEndpoint(s string) (endpoint, error) {
	e := endpoint{addr: s}
	if strings.Contains(s, "://") {
		u, err := url.Parse(s)
		if err != nil {
			return endpoint{}, fmt.Errorf("endpoint %q: %w", s, err)
		}
		if u.Scheme != "http" && u.Scheme != "https" {
			return endpoint{}, fmt.Errorf("endpoint %q: want host:port, http://host:port or https://host:port", s)
		}
		e = endpoint{addr: u.Host, secure: u.Scheme == "https"}
	}
	if _, _, err := net.SplitHostPort(e.addr); err != nil {
		return endpoint{}, fmt.Errorf("endpoint %q: want host:port: %w", s, err)
	}
	return e, nil
}
