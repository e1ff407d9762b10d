package cmd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"

	"github.com/flotilla-kv/flotilla/internal/certfiles"
)

// clientFlags are shared by all client commands. They are flags of the root, so that they may also
// precede the command, as with etcdctl.
type clientFlags struct {
	endpoints                   []string
	dialTimeout, commandTimeout time.Duration
	output, writeOut            string
	hex                         bool
	tls                         certfiles.Files
	skipVerify                  bool
	user, password              string
}

func (f *clientFlags) register(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.endpoints, "endpoints", []string{"127.0.0.1:2379"}, "client addresses of nodes, any of which will do")
	flags.DurationVar(&f.dialTimeout, "dial-timeout", 2*time.Second, "how long to wait for a node to accept the connection")
	flags.DurationVar(&f.commandTimeout, "command-timeout", 5*time.Second, "how long to wait for an answer")
	flags.StringVarP(&f.output, "output", "o", "", "simple, table, json or yaml (default: what reads best)")
	flags.StringVarP(&f.writeOut, "write-out", "w", "", "etcdctl's name for --output")
	flags.StringVar(&f.tls.CA, "cacert", "", "PEM file with the authorities of the nodes' certificates (default, for https endpoints: the system's)")
	flags.StringVar(&f.tls.Cert, "cert", "", "PEM file with the client's certificate, for nodes that ask for one")
	flags.StringVar(&f.tls.Key, "key", "", "PEM file with the private key of --cert")
	flags.BoolVar(&f.skipVerify, "insecure-skip-tls-verify", false, "do not verify the nodes' certificates: whoever is on the way can read and change everything")
	flags.StringVar(&f.user, "user", "", "NAME or NAME:PASSWORD of a user, for clusters with authentication; others can see a command line, not FLOTILLA_USER")
	flags.StringVar(&f.password, "password", "", "password of --user, which then is the name alone; better FLOTILLA_PASSWORD")
	flags.BoolVar(&f.hex, "hex", false, "print keys and values as hexadecimal digits")
}

// fromEnvironment sets the flags that are not on the command line from FLOTILLA_NAME, or from the
// variable that etcdctl reads.
func (f *clientFlags) fromEnvironment(flags *pflag.FlagSet) error {
	var errs []error
	flags.VisitAll(func(flag *pflag.Flag) {
		if flag.Changed {
			return
		}
		for _, name := range []string{envName(flag.Name), strings.Replace(envName(flag.Name), "FLOTILLA", "ETCDCTL", 1)} {
			if value := os.Getenv(name); value != "" {
				if err := flags.Set(flag.Name, value); err != nil {
					errs = append(errs, fmt.Errorf("%s from %s: %w", flag.Name, name, err))
				}
				return
			}
		}
	})
	return errors.Join(errs...)
}

// session is a command's connection to a cluster and its output.
type session struct {
	*clientv3.Client
	printer
	timeout time.Duration
	// ctx ends when the command is asked to stop.
	ctx context.Context
}

// connected runs do over a connection to the cluster. The command prints in one of the
// given formats; the first is its default.
func (f *clientFlags) connected(c *cobra.Command, formats []string, do func(*session) error) error {
	p, err := f.prepare(c, formats)
	if err != nil {
		return err
	}
	return f.with(c.Context(), p, do)
}

// prepare completes the flags and returns the command's printer.
func (f *clientFlags) prepare(c *cobra.Command, formats []string) (printer, error) {
	if err := f.fromEnvironment(c.InheritedFlags()); err != nil {
		return printer{}, err
	}
	return f.newPrinter(c, formats)
}

// with runs do over a connection, which is closed afterwards.
func (f *clientFlags) with(ctx context.Context, p printer, do func(*session) error) (err error) {
	client, err := f.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ignoreCanceled(client.Close())) }()
	return do(&session{Client: client, printer: p, timeout: f.commandTimeout, ctx: ctx})
}

// login is what the flags say of the user.
func (f *clientFlags) login() (name, password string, err error) {
	switch name, password, both := strings.Cut(f.user, ":"); {
	case f.user == "" && f.password != "":
		return "", "", misused("--password is that of --user, which is missing")
	case f.user == "":
		return "", "", nil
	case f.password != "":
		return f.user, f.password, nil // as with etcdctl, the name may then have a colon
	case name == "" || !both || password == "":
		return "", "", misused("--user %s has no password: give --user NAME:PASSWORD, or --user NAME and FLOTILLA_PASSWORD", name)
	default:
		return name, password, nil
	}
}

// dial connects, and waits until a node has accepted the connection, so that a command which fails
// here certainly did nothing.
func (f *clientFlags) dial(ctx context.Context) (*clientv3.Client, error) {
	if err := f.checkEndpoints(); err != nil {
		return nil, err
	}
	secure, err := f.tlsConfig()
	if err != nil {
		return nil, err
	}
	name, password, err := f.login()
	if err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: f.endpoints, DialTimeout: f.dialTimeout, TLS: secure, Username: name, Password: password,
		Logger: zap.NewNop(), // it would log every retry; what fails for good is reported once
	})
	switch code, text := describe(err); {
	case err == nil:
	case name != "" && (code == codes.Unavailable || code == codes.DeadlineExceeded):
		return nil, f.unreachable(ctx, secure)
	case name != "":
		return nil, fmt.Errorf("log in as %q: %s", name, text)
	default:
		return nil, fmt.Errorf("--endpoints %s: %w", strings.Join(f.endpoints, ","), err)
	}
	dialing, cancel := context.WithTimeout(ctx, f.dialTimeout)
	defer cancel()
	conn := client.ActiveConnection()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		conn.Connect() // a connection that has nothing to do goes idle by itself
		if !conn.WaitForStateChange(dialing, state) {
			return nil, errors.Join(f.unreachable(ctx, secure), ignoreCanceled(client.Close()))
		}
	}
	return client, nil
}

// unreachable reports for each endpoint why there is no connection to it.
func (f *clientFlags) unreachable(ctx context.Context, secure *tls.Config) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var causes []string
	advice := "; is the cluster running? flotilla demo starts one"
	for _, e := range f.endpoints {
		cause, accepts := connectFailure(e, secure)
		causes = append(causes, e+" "+cause)
		if accepts {
			advice = ""
		}
	}
	return &failure{exitUnavailable, fmt.Errorf("no endpoint answered within %s: %s%s", f.dialTimeout, strings.Join(causes, ", "), advice)}
}

// checkEndpoints refuses what cannot be connected to. clientv3 would try until its time is over.
func (f *clientFlags) checkEndpoints() error {
	for _, e := range f.endpoints {
		if scheme, _, has := strings.Cut(e, "://"); has && scheme != "http" && scheme != "https" {
			continue // a socket, for example
		}
		if _, _, err := net.SplitHostPort(hostPort(e)); err != nil {
			return misused("--endpoints %s: want host:port, http://host:port or https://host:port", e)
		}
	}
	return nil
}

// hostPort is the part of an endpoint that is connected to.
func hostPort(endpoint string) string {
	address := strings.TrimPrefix(strings.TrimPrefix(endpoint, "http://"), "https://")
	address, _, _ = strings.Cut(address, "/")
	return address
}

// tlsConfig is what the flags say; nil, unless an endpoint begins with https or a flag asks for TLS.
func (f *clientFlags) tlsConfig() (*tls.Config, error) {
	if (f.tls.Cert == "") != (f.tls.Key == "") {
		return nil, misused("--cert and --key are given together: a certificate and its private key")
	}
	https := slices.ContainsFunc(f.endpoints, func(e string) bool { return strings.HasPrefix(e, "https://") })
	if !https && f.tls == (certfiles.Files{}) && !f.skipVerify {
		return nil, nil
	}
	source, err := certfiles.Open(f.tls, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, fmt.Errorf("--cacert, --cert, --key: %w", err)
	}
	cfg := source.Client("")
	cfg.InsecureSkipVerify = f.skipVerify
	return cfg, nil
}

// connectFailure connects once more, without gRPC, which hides its reasons. It tells also whether anything accepts
// connections there.
func connectFailure(endpoint string, secure *tls.Config) (reason string, accepts bool) {
	const patience = 500 * time.Millisecond
	address := hostPort(endpoint)
	conn, err := net.DialTimeout("tcp", address, patience)
	switch {
	case err == nil:
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection, as what follows then does
		if secure == nil || strings.HasPrefix(endpoint, "http://") {
			if speaksTLS(conn) {
				return "wants TLS: give https://" + address + ", and --cacert FILE with the authority of its certificate", true
			}
			return "accepts connections but does not speak gRPC, or not yet: it may be starting or be overloaded", true
		}
		err := handshakeFailure(conn, address, secure)
		if noTLS(err) && speaksHTTP(address, patience) {
			return "serves without TLS: give http://" + address, true
		}
		return handshakeText(err), true
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refuses connections", false
	case isTimeout(err):
		return "does not react", false
	}
	return fmt.Sprintf("cannot be reached (%v)", err), false
}

// speaksTLS reports whether the other end does. What certificates either has does not matter.
func speaksTLS(conn net.Conn) bool {
	err := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).Handshake() // nothing is sent over it
	return err == nil || strings.Contains(err.Error(), "remote error: tls")
}

// noTLS reports whether a handshake failed as it does where the other end knows nothing of TLS. Anything else, such as a certificate
// that is not trusted, must not be answered with the advice to do without.
func noTLS(err error) bool {
	var other tls.RecordHeaderError
	return errors.As(err, &other) || errors.Is(err, io.EOF)
}

// speaksHTTP reports whether a server answers without TLS. One with TLS may do so too, to say with 400 that it wants it.
func speaksHTTP(address string, patience time.Duration) bool {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience)) // as above
	if _, err := conn.Write([]byte("GET /version HTTP/1.1\r\nHost: " + address + "\r\n\r\n")); err != nil {
		return false
	}
	begin := make([]byte, len("HTTP/1.1 200"))
	_, err = io.ReadFull(conn, begin)
	return err == nil && strings.HasPrefix(string(begin), "HTTP/1.") && !strings.HasSuffix(string(begin), " 400")
}

// handshakeFailure does the TLS handshake once more. A server tells what it thinks of the client's certificate only
// afterwards, so something is read too. No error: it speaks TLS.
func handshakeFailure(conn net.Conn, address string, secure *tls.Config) error {
	cfg := secure.Clone()
	cfg.ServerName, _, _ = net.SplitHostPort(address) // it was connected to
	cfg.NextProtos = []string{"h2"}
	secured := tls.Client(conn, cfg)
	if err := secured.Handshake(); err != nil {
		return err
	}
	_, err := secured.Read(make([]byte, 1))
	if isTimeout(err) {
		return nil
	}
	return err
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// handshakeText says what a handshake's error means for whoever gives the flags.
func handshakeText(err error) string {
	var untrusted *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	switch {
	case err == nil:
		return "speaks TLS but does not answer gRPC in time"
	case isTimeout(err):
		return "accepts connections but does not answer"
	case errors.As(err, &authority):
		return fmt.Sprintf("is not trusted (%v): give --cacert FILE with the authority of its certificate", err)
	case errors.As(err, &host):
		return fmt.Sprintf("is not trusted (%v): give an endpoint that its certificate names", err)
	case errors.As(err, &untrusted):
		return fmt.Sprintf("is not trusted (%v)", err)
	case strings.Contains(err.Error(), "certificate required"):
		return fmt.Sprintf("wants a certificate of its clients: give --cert and --key (%v)", err)
	}
	return fmt.Sprintf("refuses TLS (%v)", err)
}

// ignoreCanceled drops the error that a closed client returns.
func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// read makes a request that changes nothing.
func read[R any](s *session, request func(context.Context) (R, error)) (R, error) {
	return call(s, request, false)
}

// write makes a request whose outcome may remain unknown.
func write[R any](s *session, request func(context.Context) (R, error)) (R, error) {
	return call(s, request, true)
}

func call[R any](s *session, request func(context.Context) (R, error), writes bool) (R, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
	defer cancel()
	resp, err := request(ctx)
	return resp, explain(err, s.timeout, writes)
}
