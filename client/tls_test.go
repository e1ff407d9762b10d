package client_test

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/internal/certfiles"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// The client speaks TLS to every node, and its error says what stands in the way.
func TestTLS(t *testing.T) {
	t.Parallel()
	certs := testcluster.NewCertificates(t)
	c := testcluster.Start(t, testcluster.Options{Splits: "g,n,t", Edit: certs.Secure(t)})
	try := func(cfg *tls.Config) error {
		cli, err := client.New(client.Config{Endpoints: []string{c.Node(1).Inside().ClientAddr()}, TLS: cfg})
		require.NoError(t, err)
		defer cli.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, key := range []string{"apple", "grape", "orange", "tomato"} {
			if _, err := cli.Put(ctx, key, []byte("v")); err != nil {
				return err
			}
		}
		return nil
	}
	own := testcluster.Config(t, certs.Issue(t, "client", time.Hour))
	require.Eventually(t, func() bool { return try(own) == nil }, 20*time.Second, 10*time.Millisecond)
	// A node refuses a client's certificate after the handshake (TLS 1.3), so the client may see no more than its end.
	require.Error(t, try(testcluster.Config(t, certs.Issue(t, "late", -time.Minute))))
	require.Error(t, try(testcluster.Config(t, certfiles.Files{CA: certs.CA()})))
	require.ErrorContains(t, try(testcluster.Config(t, testcluster.NewCertificates(t).Issue(t, "other", time.Hour))), "unknown authority")
	require.Error(t, try(nil))
	certs.IssueNode(t, c.Node(1).Name, -time.Minute)
	require.ErrorContains(t, try(own), "certificate has expired")
}
