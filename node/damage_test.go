package node_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// damageFiles flips a bit in each file of a stopped node's store that holds the bytes.
func damageFiles(t *testing.T, n *testcluster.Node, held []byte) {
	t.Helper()
	damaged := 0
	require.NoError(t, filepath.WalkDir(filepath.Join(n.Config().DataDir, "store"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		at := bytes.Index(content, held)
		if at < 0 {
			return nil
		}
		damaged++
		content[at] ^= 1
		return os.WriteFile(path, content, 0o600)
	}))
	require.NotZero(t, damaged, "no file of %s has the value", n.Name)
}

// A disk that altered a byte of a node's store is found by the first read of it. The reader gets the right value, from another
// node, the replica serves nothing any more, and is replaced. Nobody has to ask for a check.
func TestReadsOfADamagedFile(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"in a table": 100, "stored apart": 10_000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testcluster.Start(t, testcluster.Options{Balance: true, Splits: "m", Edit: func(_ string, cfg *node.Config) { cfg.CorruptCheckTime = 0 }})
			_, err := admin(t, c, c.Node(1)).Set(t.Context(), &adminpb.SetRequest{Name: "rebalance", Value: "off"})
			require.NoError(t, err)
			client, ill := c.Client(t), c.Node(3)
			put(t, client, "z", "good")
			value := make([]byte, size)
			for i := range 6 { // more than a block of a table: the node's own records must stay as they are
				var puts []clientv3.Op
				for j := range 100 {
					for b := range value { // what cannot be compressed can be found
						value[b] = byte(rand.IntN(256))
					}
					puts = append(puts, clientv3.OpPut(fmt.Sprintf("a/%d/%02d", i, j), string(value[:min(size, 100)])))
				}
				_, err := client.Txn(t.Context()).Then(puts...).Commit()
				require.NoError(t, err)
			}
			for b := range value {
				value[b] = byte(rand.IntN(256))
			}
			const key = "a/3/50x"
			put(t, client, key, string(value))
			testcluster.Until(t, "the node to have the key", func() bool {
				r, runs := ill.Inside().Host().Replica(ill.Inside().Map().Lookup([]byte(key)).ID)
				if !runs {
					return false
				}
				resp, err := r.Range(&pb.RangeRequest{Key: []byte(key)}, 0)
				return err == nil && len(resp.Kvs) == 1
			})
			ill.Stop()
			damageFiles(t, ill, value[size/2:size/2+30])
			ill.Start(t)

			d := c.Node(1).Inside().Map().Lookup([]byte(key))
			was, _ := d.ReplicaOn(id(ill))
			through := c.Client(t, ill)
			for _, opts := range [][]clientv3.OpOption{nil, {clientv3.WithSerializable()}} {
				resp, err := through.Get(t.Context(), key, opts...)
				require.NoError(t, err)
				require.Len(t, resp.Kvs, 1)
				require.True(t, bytes.Equal(value, resp.Kvs[0].Value))
			}
			requireShown(t, c, d.ID, ill, "quarantined")
			require.Equal(t, []uint64{uint64(id(ill))}, corrupt(t, c))
			requireValue(t, through, "z", "good")

			requireReplaced(t, c, d.ID, was.ID)
		})
	}
}
