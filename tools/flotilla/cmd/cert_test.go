package cmd_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/ports"
	"github.com/flotilla-kv/flotilla/tools/flotilla/cmd"
)

// From nothing to a node with TLS: the certificates are made, the node asks for them, and commands say what is wrong
// when they have none.
func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	certs := filepath.Join(dir, "certs")
	file := func(name string) string { return filepath.Join(certs, name) }
	run := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := cmd.Run(t.Context(), args, &out, &out)
		return code, out.String()
	}
	code, said := run("cert", "node", "n1", "--host", "127.0.0.1", "--dir", certs)
	require.Equal(t, 1, code)
	require.Contains(t, said, "flotilla cert ca makes one")
	for _, args := range [][]string{{"cert", "ca"}, {"cert", "node", "n1", "--host", "localhost,127.0.0.1"}, {"cert", "client", "ann"}} {
		code, said := run(append(args, "--dir", certs)...)
		require.Zero(t, code, said)
	}
	code, said = run("cert", "ca", "--dir", certs)
	require.Equal(t, 1, code)
	require.Contains(t, said, "is not overwritten")
	code, said = run("cert", "node", "n2", "--dir", certs)
	require.Equal(t, 1, code)
	require.Contains(t, said, "--host")
	code, said = run("cert", "client", "../ann", "--dir", certs)
	require.Equal(t, 1, code)
	require.Contains(t, said, "no name")

	clients, err := ports.Lease()
	require.NoError(t, err)
	defer clients.Release()
	peers, err := ports.Lease()
	require.NoError(t, err)
	defer peers.Release()
	p := start(t, nil, "start", "--name", "n1", "--data-dir", filepath.Join(dir, "n1"), "--client-addr", clients.Addr(), "--peer-addr", peers.Addr(),
		"--cert-file", file("n1.crt"), "--key-file", file("n1.key"), "--trusted-ca-file", file("ca.crt"), "--client-cert-auth",
		"--peer-cert-file", file("n1.crt"), "--peer-key-file", file("n1.key"), "--peer-trusted-ca-file", file("ca.crt"))
	p.waitFor(t, "is ready to serve")
	own := []string{"--cacert", file("ca.crt"), "--cert", file("ann.crt"), "--key", file("ann.key")}
	client := func(endpoint string, flags []string, args ...string) (int, string) {
		return run(append(append([]string{"--dial-timeout", "1s", "--endpoints", endpoint}, flags...), args...)...)
	}
	code, said = client(clients.Addr(), own, "put", "k", "v")
	require.Zero(t, code, said)
	code, said = client("https://"+clients.Addr(), own, "get", "k", "--print-value-only")
	require.Zero(t, code, said)
	require.Equal(t, "v\n", said)
	code, said = client(clients.Addr(), append(own[2:], "--insecure-skip-tls-verify"), "get", "k", "--print-value-only")
	require.Zero(t, code, said)
	require.Equal(t, "v\n", said)
	for _, tc := range []struct {
		flags []string
		says  string
	}{
		{nil, "wants TLS: give https://"},
		{[]string{"--cacert", file("ca.crt")}, "certificate required"},
		{own[2:], "unknown authority"},
		{own[:4], "--cert and --key are given together"},
		{[]string{"--cacert", file("none")}, "no such file"},
	} {
		_, said = client(clients.Addr(), tc.flags, "get", "k")
		require.Contains(t, said, tc.says)
	}
	require.NoError(t, p.Process.Signal(os.Interrupt))
}
