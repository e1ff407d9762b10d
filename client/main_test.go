package client_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// Every client and node closes what it started; here it shows (X5).
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect returns a client that is closed when the test ends.
func connect(t testing.TB, c *testcluster.Cluster, edit ...func(*client.Config)) *client.Client {
	t.Helper()
	cfg := client.Config{Endpoints: c.Endpoints()}
	for _, f := range edit {
		f(&cfg)
	}
	cl, err := client.New(cfg)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

// spread is a key in the i-th eighth of the keyspace.
func spread(i int, name string) string { return string([]byte{byte(i*32 + 1)}) + name }

// steadyTick keeps leaders in office on a busy machine, in tests that are not about their
// changes.
const steadyTick = 350 * time.Millisecond
