package engine

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

func TestLocalRecords(t *testing.T) {
	e := openMem(t, vfs.NewMem())
	b := e.NewBatch()
	defer b.Close()
	const highest = 1<<64 - 1
	for _, r := range []LocalRecord{
		{2, 1, 0, []byte("first kind")}, {2, 1, 255, []byte("last kind")}, {2, 2, 0, []byte{}},
		{3, 1, 7, []byte("other shard")}, {highest, highest, 255, []byte("highest")},
	} {
		require.NoError(t, b.Set(LocalKey(r.Shard, r.Replica, r.Kind), r.Value, nil))
	}
	require.NoError(t, e.Commit(b))
	put(t, e, "l", 2, "a user's key is not a local record")

	v, err := e.Local(2, 1, 255)
	require.NoError(t, err)
	require.Equal(t, "last kind", string(v))
	v, err = e.Local(2, 2, 0)
	require.NoError(t, err)
	require.NotNil(t, v, "an empty record is there")
	v, err = e.Local(2, 3, 0)
	require.NoError(t, err)
	require.Nil(t, v)

	all, err := e.Locals()
	require.NoError(t, err)
	require.Len(t, all, 5)
	require.Equal(t, LocalRecord{2, 1, 0, []byte("first kind")}, all[0])
	require.Equal(t, LocalRecord{highest, highest, 255, []byte("highest")}, all[4])

	require.NoError(t, e.DeleteReplica(2, 1))
	require.NoError(t, e.DeleteReplica(highest, highest))
	require.NoError(t, e.DeleteReplica(9, 9), "deleting nothing is fine")
	all, err = e.Locals()
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.EqualValues(t, 2, all[0].Replica)
	require.EqualValues(t, 3, all[1].Shard)
}
