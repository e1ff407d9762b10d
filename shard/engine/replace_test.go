package engine

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
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
	require.Equal(t, []LocalRecord{{2, 1, 0, nil, []byte("new")}, {3, 1, 0, nil, []byte("stays")}}, locals)

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
		{"a lease of another shard", span("b", "d"), putAll("b"), []KV{{LeaseKey(1), []byte("record")}}, "outside of the span"},
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

// Leases and attached keys are replaced with the span's data, and no others are.
func TestReplaceLeases(t *testing.T) {
	e := openMem(t, vfs.NewMem())
	var inside, outside int64
	half := span("\x80", "")
	for id := int64(1); inside == 0 || outside == 0; id++ {
		if half.Contains(shard.HomeKey(id)) {
			inside = id
		} else {
			outside = id
		}
	}
	b := e.NewBatch()
	defer b.Close()
	for _, id := range []int64{inside, outside} {
		require.NoError(t, b.Set(LeaseKey(id), []byte("old"), nil))
	}
	for _, lease := range []int64{-1, 3, 7} {
		for _, key := range []string{"", "a", "\x80", "\xff"} {
			if lease != 7 || key == "a" {
				require.NoError(t, b.Set(AttachedKey(lease, []byte(key)), nil, nil))
			}
		}
	}
	require.NoError(t, e.Commit(b))

	fresh := inside + 1
	for !half.Contains(shard.HomeKey(fresh)) {
		fresh++
	}
	require.NoError(t, e.Replace(half, func(w *SSTWriter) error {
		w.Attach(5, []byte("\x90"))
		w.Attach(3, []byte("\xff"))
		return nil
	}, KV{LeaseKey(fresh), []byte("new")}))
	require.ElementsMatch(t, []string{fmt.Sprintf("%x=old", outside), fmt.Sprintf("%x=new", fresh)}, dumpLeases(t, e))
	want := []string{`3 ""`, `3 "a"`, `3 "\xff"`, `5 "\x90"`, `7 "a"`, `-1 ""`, `-1 "a"`}
	require.Equal(t, want, dumpAttached(t, e))

	// What was replaced can be replaced.
	require.NoError(t, e.Replace(half, nil))
	require.Equal(t, []string{fmt.Sprintf("%x=old", outside)}, dumpLeases(t, e))
	require.Equal(t, []string{`3 ""`, `3 "a"`, `7 "a"`, `-1 ""`, `-1 "a"`}, dumpAttached(t, e))
}

func dumpLeases(t *testing.T, e *Engine) []string {
	t.Helper()
	return dumpRange(t, e, []byte{leaseTag, sentinel}, after([]byte{leaseTag}), func(k, v []byte) string {
		lease, ok := decodeLeaseKey(k)
		require.True(t, ok, "%x", k)
		return fmt.Sprintf("%x=%s", lease, v)
	})
}

func dumpAttached(t *testing.T, e *Engine) []string {
	t.Helper()
	lower, upper := attachedTagBounds()
	return dumpRange(t, e, lower, upper, func(k, v []byte) string {
		lease, key, ok := DecodeAttachedKey(k)
		require.True(t, ok, "%x", k)
		require.Empty(t, v)
		return fmt.Sprintf("%d %q", lease, key)
	})
}

func dumpRange(t *testing.T, e *Engine, lower, upper []byte, line func(k, v []byte) string) (out []string) {
	t.Helper()
	it, err := e.NewReader().NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	require.NoError(t, err)
	defer func() { require.NoError(t, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		require.NoError(t, err)
		out = append(out, line(it.Key(), v))
	}
	require.NoError(t, it.Error())
	return out
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

// What others commit while a Replace is on its way may lie between its records. Pebble then keeps the new tables in memory's
// queue: they are durable with a flush, for which Replace waits (E3).
func TestReplaceIsDurableBesideCommits(t *testing.T) {
	var e *Engine
	fs := vfs.NewCrashableMem()
	commit := sync.OnceFunc(func() {
		b := e.NewBatch()
		defer b.Close()
		require.NoError(t, b.Set(LocalKey(3, 1, 0), []byte("another's"), nil))
		require.NoError(t, e.Commit(b))
	})
	e, err := Open(storeDir, Options{CacheBytes: 1 << 20, FS: errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpLink && strings.Contains(op.Path, incomingDir) { // an ingest begins
			commit()
		}
		return nil
	}))})
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	put(t, e, "a", 99, "old")
	require.NoError(t, e.Replace(span("a", "c"), putAll("a", "b"), KV{LocalKey(2, 1, 0), []byte("x")}, KV{LocalKey(4, 1, 0), []byte("y")}))

	after, err := Open(storeDir, Options{CacheBytes: 1 << 20, FS: fs.CrashClone(vfs.CrashCloneCfg{})})
	require.NoError(t, err)
	defer func() { require.NoError(t, after.Close()) }()
	require.Equal(t, []string{"a@100=new", "b@101=new"}, dump(t, after.NewReader(), shard.Everything()))
	got, err := after.Local(4, 1, 0)
	require.NoError(t, err)
	require.Equal(t, "y", string(got))
}

// E9: whoever may replace the data is asked again when others have got keys, or have given some away, after it had
// looked; what it has seen last is durable before the data is replaced.
func TestReplaceIfAsksAgain(t *testing.T) {
	fs := vfs.NewCrashableMem()
	e := openMem(t, fs)
	own := func(value string) {
		b := e.NewBatch()
		e.Owners.Lock()
		defer e.Owners.Unlock()
		require.NoError(t, b.Set(LocalKey(3, 1, 0), []byte(value), nil))
		require.NoError(t, e.Commit(b))
		require.NoError(t, b.Close())
	}
	asked := 0
	require.NoError(t, e.ReplaceIf(span("b", "d"), func() error {
		if asked++; asked < 3 {
			own(fmt.Sprint("owner ", asked)) // after the look
		}
		return nil
	}, putAll("b")))
	require.Equal(t, 3, asked)
	crashed := openMem(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	seen, err := crashed.Local(3, 1, 0)
	require.NoError(t, err)
	require.Equal(t, "owner 2", string(seen))

	refused := errors.New("it is another's")
	asked = 0
	require.ErrorIs(t, e.ReplaceIf(span("b", "d"), func() error {
		if asked++; asked == 2 {
			return refused
		}
		own("it")
		return nil
	}, putAll("c")), refused)
	require.Equal(t, []string{"b@100=new"}, dump(t, e.NewReader(), shard.Everything()))
	names, err := fs.List(e.incoming)
	require.NoError(t, err)
	require.Empty(t, names)
}
