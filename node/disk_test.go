package node_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// A nearly full disk refuses what would fill it, on every node, and says so; the alarm
// ends by itself when there is room.
func TestDiskNearlyFull(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	full, other := c.Node(3), c.Node(1)
	put(t, c.Client(t), spread(0, "k"), "v")
	full.Disk.SetFree(1 << 20)
	alarmed := func(want bool) {
		t.Helper()
		for _, n := range c.Nodes() {
			testcluster.Eventually(t, fmt.Sprintf("alarm %t on %s", want, n.Name), func(ctx context.Context) error {
				resp, err := c.Client(t, n).AlarmList(ctx)
				if err != nil {
					return err
				}
				got := len(resp.Alarms) == 1 && resp.Alarms[0].Alarm == pb.AlarmType_NOSPACE
				if got != want {
					return fmt.Errorf("alarms: %v", resp.Alarms)
				}
				return nil
			})
		}
	}
	alarmed(true)
	client := c.Client(t, other)
	for i := range 4 {
		_, err := client.Put(t.Context(), spread(2*i, "more"), "v")
		require.ErrorIs(t, err, rpctypes.ErrNoSpace)
	}
	_, err := client.Delete(t.Context(), spread(0, "k"))
	require.NoError(t, err)
	_, err = client.Get(t.Context(), spread(0, "k"))
	require.NoError(t, err)

	full.Disk.SetFree(100 << 30)
	alarmed(false)
	_, err = client.Put(t.Context(), spread(0, "more"), "v")
	require.NoError(t, err)
}
