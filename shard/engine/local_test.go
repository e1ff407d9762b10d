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
		{2, 1, 0, nil, []byte("first kind")}, {2, 1, 3, nil, []byte("alone")}, {2, 1, 3, []byte{0}, []byte("one of several")},
		{2, 1, 3, []byte{0, 0xff}, []byte("another")}, {2, 1, 255, []byte{0xff}, []byte("last kind")}, {2, 2, 0, nil, []byte{}},
		{3, 1, 7, nil, []byte("other shard")}, {highest, highest, 255, nil, []byte("highest")},
	} {
		require.NoError(t, b.Set(LocalKey(r.Shard, r.Replica, r.Kind, r.Suffix...), r.Value, nil))
	}
	require.NoError(t, e.Commit(b))
	put(t, e, "l", 2, "a user's key is not a local record")

	v, err := e.Local(2, 1, 3)
	require.NoError(t, err)
	require.Equal(t, "alone", string(v))
	v, err = e.Local(2, 2, 0)
	require.NoError(t, err)
	require.NotNil(t, v, "an empty record is there")
	v, err = e.Local(2, 3, 0)
	require.NoError(t, err)
	require.Nil(t, v)

	all, err := e.Locals()
	require.NoError(t, err)
	require.Len(t, all, 8)
	require.Equal(t, LocalRecord{2, 1, 0, nil, []byte("first kind")}, all[0])
	require.Equal(t, LocalRecord{highest, highest, 255, nil, []byte("highest")}, all[7])
	some, err := e.LocalsOf(2, 1, 3)
	require.NoError(t, err)
	require.Equal(t, all[1:4], some)

	require.NoError(t, e.DeleteReplica(2, 1, nil))
	require.NoError(t, e.DeleteReplica(highest, highest, nil))
	require.NoError(t, e.DeleteReplica(9, 9, nil), "deleting nothing is fine")
	all, err = e.Locals()
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.EqualValues(t, 2, all[0].Replica)
	require.EqualValues(t, 3, all[1].Shard)
}
