package engine

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

func putAll(kvs ...string) func(w *SSTWriter) error {
	return func(w *SSTWriter) error {
		for i, k := range kvs {
			if err := w.Put([]byte(k), shard.Revision(100+i), []byte("new")); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestReplace(t *testing.T) {
	fs := vfs.NewMem()
	e := openMem(t, fs)
	for i, k := range []string{"a", "b", "c", "d"} {
		put(t, e, k, shard.Revision(2+i), "old")
		put(t, e, k, shard.Revision(12+i), "old")
	}
	b := e.NewBatch()
	defer b.Close()
	require.NoError(t, b.Set(LocalKey(2, 1, 0), []byte("old"), nil))
	require.NoError(t, b.Set(LocalKey(2, 1, 1), []byte("goes"), nil))
	require.NoError(t, b.Set(LocalKey(3, 1, 0), []byte("stays"), nil))
	require.NoError(t, e.Commit(b))

	require.NoError(t, e.Replace(span("b", "d"), putAll("b", "bb", "c"),
		KV{LocalKey(2, 1, 1), nil}, KV{LocalKey(2, 1, 0), []byte("new")}))
	require.Equal(t, []string{
		"a@12=old", "a@2=old", "b@100=new", "bb@101=new", "c@102=new", "d@15=old", "d@5=old",
	}, dump(t, e.NewReader(), shard.Everything()))
	locals, err := e.Locals()
	require.NoError(t, err)
	require.Equal(t, []LocalRecord{{2, 1, 0, []byte("new")}, {3, 1, 0, []byte("stays")}}, locals)

	// Replaced data can be replaced and written on.
	put(t, e, "b", 200, "newer")
	require.NoError(t, e.Replace(span("bb", ""), nil))
	require.Equal(t, []string{"a@12=old", "a@2=old", "b@200=newer", "b@100=new"}, dump(t, e.NewReader(), shard.Everything()))

	names, err := fs.List(e.incoming)
	require.NoError(t, err)
	require.Empty(t, names, "nothing is left behind")
}

func TestReplaceThatFailsChangesNothing(t *testing.T) {
	broken := errors.New("the sender is gone")
	for _, c := range []struct {
		name  string
		span  shard.Span
		build func(w *SSTWriter) error
		local []KV
		want  string
	}{
		{"build fails", span("b", "d"), func(w *SSTWriter) error { return errors.Join(putAll("b", "c")(w), broken) }, nil, "the sender is gone"},
		{"key outside", span("b", "d"), putAll("b", "d"), nil, "outside of the span"},
		{"keys out of order", span("b", "d"), putAll("c", "b"), nil, "add key"},
		{"empty span", span("d", "b"), putAll(), nil, "span is empty"},
		{"not a local key", span("b", "d"), putAll("b"), []KV{{[]byte("zz"), nil}}, "local key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := vfs.NewMem()
			e := openMem(t, fs)
			put(t, e, "b", 2, "old")
			require.ErrorContains(t, e.Replace(c.span, c.build, c.local...), c.want)
			require.Equal(t, []string{"b@2=old"}, dump(t, e.NewReader(), shard.Everything()))
			names, err := fs.List(e.incoming)
			require.NoError(t, err)
			require.Empty(t, names)
		})
	}
}

// A Replace of more than one table.
func TestReplaceLarge(t *testing.T) {
	e := openMem(t, vfs.NewMem())
	value := make([]byte, 1<<20)
	for i := range value {
		value[i] = byte(i * i >> 7) // not to be compressed to nothing
	}
	var tables int
	require.NoError(t, e.Replace(shard.Everything(), func(w *SSTWriter) error {
		for i := range 80 {
			value[i]++
			if err := w.Put(fmt.Appendf(nil, "%03d", i), 5, value); err != nil {
				return err
			}
			tables = len(w.paths)
		}
		return nil
	}))
	t.Logf("%d tables", tables)
	require.Len(t, dump(t, e.NewReader(), shard.Everything()), 80)
}

// A View shows its moment whatever happens to the span afterwards.
func TestViewOutlivesReplace(t *testing.T) {
	e := openMem(t, vfs.NewMem())
	for i := range 100 {
		put(t, e, fmt.Sprintf("k%02d", i), shard.Revision(i+2), "old")
	}
	want := dump(t, e.NewReader(), span("k", "l"))
	inMemory := e.NewView(span("k", "l"))
	require.NoError(t, e.db.Flush())
	inTables := e.NewView(span("k", "l"))
	put(t, e, "k50", 500, "newer")
	require.NoError(t, e.Replace(span("k", "l"), putAll("k1", "k2")))
	require.NoError(t, e.Replace(span("k10", "k60"), nil))
	for _, v := range []*View{inMemory, inTables} {
		require.Equal(t, want, dump(t, v, span("k", "l")))
		require.NoError(t, v.Close())
	}
}
