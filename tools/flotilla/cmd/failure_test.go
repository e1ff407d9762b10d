package cmd_test

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/tools/flotilla/cmd"
)

// serve listens and answers every call with what handle returns.
func serve(t *testing.T, handle func(grpc.ServerStream) error) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error { return handle(stream) }))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		require.NoError(t, <-served)
	})
	return l.Addr().String()
}

// A read that is not answered did nothing; a write may have been made.
func TestExitCodesTellWhetherAnythingWasChanged(t *testing.T) {
	silent := serve(t, func(s grpc.ServerStream) error {
		<-s.Context().Done()
		return s.Context().Err()
	})
	failing := serve(t, func(grpc.ServerStream) error { return status.Error(codes.Unavailable, "etcdserver:\nnot now") })
	bare := serve(t, func(grpc.ServerStream) error { return status.Error(codes.Unimplemented, "unknown method") })
	etcd := serve(t, func(grpc.ServerStream) error {
		return status.Error(codes.Unimplemented, "unknown service flotilla.admin.v1.Admin")
	})
	peers := serve(t, func(grpc.ServerStream) error {
		return status.Error(codes.Unimplemented, "unknown service etcdserverpb.KV")
	})
	for _, c := range []struct {
		name, endpoint, command string
		code                    int
		words                   []string
	}{
		{"a read without answer", silent, "get a", 2, []string{"no answer within 200ms (--command-timeout)"}},
		{"a put without answer", silent, "put a 1", 3, []string{"no answer within 200ms", "may have been made or not"}},
		{"a deletion without answer", silent, "del a", 3, []string{"may have been made or not"}},
		{"a lease without answer", silent, "lease grant 10", 3, []string{"may have been made or not"}},
		{"a lock without answer", silent, "lock a true", 3, []string{"may have been made or not"}},
		{"a put that failed somewhere", failing, "put a 1", 3, []string{"etcdserver: not now; the change may have been made or not"}},
		{"Flotilla's commands against an etcd", etcd, "node ls", 1, []string{"this command is for Flotilla", "an etcd"}},
		{"a peer port", peers, "get a", 1, []string{"no client port", "--client-addr"}},
		{"what is not served", bare, "lease list", 1, []string{"this cluster does not offer it"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			args := append([]string{"--endpoints", c.endpoint, "--dial-timeout", "10s", "--command-timeout", "200ms"}, strings.Fields(c.command)...)
			require.Equal(t, c.code, cmd.Run(t.Context(), args, &out, &out), &out)
			for _, w := range c.words {
				require.Contains(t, out.String(), w)
			}
			require.Equal(t, 1, strings.Count(out.String(), "\n"), "one line: %s", &out)
		})
	}
}

// Something listens, but it is no node.
func TestAnotherProtocolIsTold(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // the test has ended
			}
			_ = conn.Close()
		}
	}()
	var out bytes.Buffer
	require.Equal(t, 2, cmd.Run(t.Context(), []string{"--endpoints", l.Addr().String(), "--dial-timeout", "200ms", "put", "a", "1"}, &out, &out))
	require.Contains(t, out.String(), "accepts connections but does not speak gRPC, or not yet: it may be starting or be overloaded")
}

// Why there is no connection, and what to give instead.
func TestEndpointsThatCannotBeUsed(t *testing.T) {
	http404 := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	quiet := func(s *httptest.Server) *httptest.Server {
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of each handshake that failed
		s.EnableHTTP2 = true
		t.Cleanup(s.Close)
		return s
	}
	plain := quiet(httptest.NewUnstartedServer(http404))
	plain.Start()
	secure := quiet(httptest.NewUnstartedServer(http404))
	secure.StartTLS()
	strict := quiet(httptest.NewUnstartedServer(http404))
	strict.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	strict.StartTLS()
	authority := filepath.Join(t.TempDir(), "ca.crt")
	require.NoError(t, os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600))
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { silent.Close() })
	running := "is the cluster running?"
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--endpoints=127.0.0.1"}, 1, "--endpoints 127.0.0.1: want host:port"},
		{[]string{"--endpoints=http://127.0.0.1/"}, 1, "want host:port, http://host:port or https://host:port"},
		{[]string{"--endpoints=127.0.0.1:1"}, 2, "refuses connections; " + running},
		{[]string{"--endpoints=" + silent.Addr().String()}, 2, "accepts connections but does not speak gRPC, or not yet"},
		{[]string{"--endpoints=" + secure.Listener.Addr().String()}, 2, "wants TLS: give " + secure.URL + ", and --cacert FILE"},
		{[]string{"--endpoints=" + strict.Listener.Addr().String()}, 2, "wants TLS: give " + strict.URL},
		{[]string{"--endpoints=https://" + plain.Listener.Addr().String()}, 2, "serves without TLS: give " + plain.URL},
		{[]string{"--endpoints=" + secure.URL}, 2, "is not trusted (tls: failed to verify certificate"},
		{[]string{"--endpoints=" + strict.URL, "--cacert=" + authority}, 2, "wants a certificate of its clients: give --cert and --key"},
	} {
		var out bytes.Buffer
		code := cmd.Run(t.Context(), append(c.args, "--dial-timeout=200ms", "get", "a"), &out, &out)
		require.Equal(t, c.code, code, "%s: %s", c.args, &out)
		require.Contains(t, out.String(), c.want, c.args)
		if !strings.Contains(c.want, running) {
			require.NotContains(t, out.String(), running, c.args)
		}
	}
}
