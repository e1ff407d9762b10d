package mvcc

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// TestRowsShareASlot reads more keys than one slot holds: the last slotRows of them stay.
func TestRowsShareASlot(t *testing.T) {
	const keys = slotRows + 3
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	batch := e.NewBatch()
	w := NewWriter(e.NewReader(), NewHeaderCache(NewHeaderBudget(0, 16, 0)))
	w.Begin(10)
	for i := range keys {
		found, err := w.Find(fmt.Append(nil, i))
		require.NoError(t, err)
		require.NoError(t, w.Put(fmt.Append(nil, i), fmt.Append(nil, "value ", i), 0, found))
	}
	require.NoError(t, w.Store(batch))
	require.NoError(t, e.Commit(batch))
	w.Finish()
	require.NoError(t, batch.Close())

	const epoch = 3
	rows := NewRowReader(NewRows(1))
	held := func() (all []string) {
		for i := range keys {
			if f, ok := rows.Held(fmt.Append(nil, i), epoch, 10); ok {
				require.Equal(t, &mvccpb.KeyValue{
					Key: fmt.Append(nil, i), Value: fmt.Append(nil, "value ", i), CreateRevision: 10, ModRevision: 10, Version: 1,
				}, f.KVs[0])
				all = append(all, fmt.Sprint(i))
			}
		}
		return all
	}
	read := func(i int) {
		f, err := rows.Fetch(e.NewReader(), shard.PointSpan(fmt.Append(nil, i)), epoch, 10, listing.FetchOptions{})
		require.NoError(t, err)
		require.Equal(t, fmt.Append(nil, "value ", i), f.KVs[0].Value)
	}
	require.Empty(t, held())
	for i := range keys {
		read(i)
	}
	require.Equal(t, []string{fmt.Sprint(keys - 2), fmt.Sprint(keys - 1)}, held())
	read(keys - 2) // is there already
	read(0)
	require.Equal(t, []string{"0", fmt.Sprint(keys - 1)}, held())

	for _, other := range []*RowReader{NewRowReader(rows.rows), rows} {
		_, ok := other.Held([]byte("0"), epoch+1, 10)
		require.False(t, ok, "another epoch")
		_, ok = other.Held([]byte("0"), epoch, 9)
		require.False(t, ok, "an earlier revision")
	}
	_, ok := NewRowReader(rows.rows).Held([]byte("0"), epoch, 10)
	require.False(t, ok, "another replica")
}

// Updates outdate the rows of a replica that is read. Those of one that nobody reads any more are forgotten, and then
// updates have nothing to outdate until the next read (V7).
func TestRowsOfReplicasThatNobodyReads(t *testing.T) {
	const epoch = 3
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	w := NewWriter(e.NewReader(), NewHeaderCache(NewHeaderBudget(0, 16, 0)))
	rows := NewRowReader(NewRows(1024))
	at := shard.Revision(0)
	update := func(key string) {
		batch := e.NewBatch()
		at++
		w.Begin(at)
		found, err := w.Find([]byte(key))
		require.NoError(t, err)
		require.NoError(t, w.Put([]byte(key), fmt.Append(nil, at), 0, found))
		require.NoError(t, w.Store(batch))
		require.NoError(t, e.Commit(batch))
		rows.Outdate(w)
		w.Finish()
		require.NoError(t, batch.Close())
	}
	read := func(key string) string {
		f, err := rows.Fetch(e.NewReader(), shard.PointSpan([]byte(key)), epoch, at, listing.FetchOptions{})
		require.NoError(t, err)
		return string(f.KVs[0].Value)
	}
	held := func(key string) bool {
		_, ok := rows.Held([]byte(key), epoch, at)
		return ok
	}
	update("a")
	for range 2 {
		first := at
		require.Equal(t, fmt.Sprint(first), read("a"))
		require.True(t, held("a"))
		update("b")
		for range rowsUnreadMax {
			update("b")
		}
		require.True(t, held("a"), "it was read %d updates ago", rowsUnreadMax)
		for range rowsUnreadMax + 2 {
			update("b")
		}
		require.False(t, held("a"), "nobody read it")
		require.Equal(t, fmt.Sprint(first), read("a"))
		update("a")
		require.False(t, held("a"), "it has changed")
	}
}
