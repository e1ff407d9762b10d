package snapfile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

func plenty(int64) error { return nil }

// written makes a file of keys, with a checksum, and returns its path.
func written(t *testing.T, max int, cut int64, leases map[int64]int64, kvs ...*mvccpb.KeyValue) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "build")
	require.NoError(t, os.Mkdir(dir, 0o700))
	b := newBuilder(dir, max, plenty)
	for _, kv := range kvs {
		require.NoError(t, b.Add(kv))
	}
	f, size, err := b.Finish(cut, leases)
	require.NoError(t, err)
	content, err := io.ReadAll(io.LimitReader(f, size))
	require.NoError(t, err)
	require.Len(t, content, int(size))
	require.NoError(t, f.Close())
	require.NoError(t, b.Close())
	require.NoDirExists(t, dir)
	return save(t, summed(content))
}

func summed(content []byte) []byte {
	sum := sha256.Sum256(content)
	return append(slices.Clip(content), sum[:]...)
}

func save(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snapshot.db")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

func latest(t *testing.T, f *File) (all []*mvccpb.KeyValue) {
	t.Helper()
	var failed error
	for kv := range f.Latest(&failed) {
		all = append(all, kv)
	}
	require.NoError(t, failed)
	return all
}

func opened(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(path, t.TempDir(), true)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

func requireSame(t *testing.T, want, got []*mvccpb.KeyValue) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.True(t, proto.Equal(want[i], got[i]), "%v\nis not\n%v", got[i], want[i])
	}
}

// Keys come back as they were given, whatever is sorted in memory and whatever on disk, also keys whose bytes look
// like the separators of the order.
func TestKeysComeBack(t *testing.T) {
	for _, max := range []int{1, 5_000, runBytes} {
		t.Run(fmt.Sprint(max), func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, uint64(max)))
			var kvs []*mvccpb.KeyValue
			for i := range 2_000 {
				key := fmt.Appendf(nil, "k\x00%d\xff", i)
				if i%7 == 0 {
					key = append([]byte{0, byte(i / 7), 0xff, 0}, key[:i%5]...)
				}
				kv := &mvccpb.KeyValue{
					Key: key, Value: bytes.Repeat([]byte{byte(i)}, random.IntN(300)), Version: 1 + random.Int64N(9),
					ModRevision: 2 + random.Int64N(500), Lease: random.Int64N(4), // many keys have one revision
				}
				kv.CreateRevision = kv.ModRevision - random.Int64N(2)
				kvs = append(kvs, kv)
			}
			slices.SortFunc(kvs, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
			kvs = slices.CompactFunc(kvs, func(a, b *mvccpb.KeyValue) bool { return bytes.Equal(a.Key, b.Key) })
			f := opened(t, written(t, max, 700, map[int64]int64{1: 60, 2: 3600, 9: 5}, kvs...))
			require.Equal(t, Info{
				Revision: 701, Keys: int64(len(kvs)), Leases: 4, Bytes: f.Bytes, Version: StorageVersion, Checksum: true,
			}, f.Info)
			require.Equal(t, map[int64]int64{1: 60, 2: 3600, 3: 1, 9: 5}, f.LeaseTTLs, "a lease that only its keys name is ending")
			requireSame(t, kvs, latest(t, f))
			requireSame(t, kvs, latest(t, f)) // also a second time
		})
	}
}

func TestNothingComesBack(t *testing.T) {
	f := opened(t, written(t, runBytes, 1, nil))
	require.Empty(t, latest(t, f))
	require.Equal(t, Info{Bytes: f.Bytes, Version: StorageVersion, Checksum: true}, f.Info)
}

// A file of etcd has history and deletions.
func TestLatestOfAFileWithHistory(t *testing.T) {
	path := written(t, runBytes, 1, nil)
	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	put := func(tx *bbolt.Tx, at []byte, kv *mvccpb.KeyValue) {
		body, err := proto.Marshal(kv)
		require.NoError(t, err)
		require.NoError(t, tx.Bucket([]byte(bucketKey)).Put(at, body))
	}
	kept := &mvccpb.KeyValue{Key: []byte("b"), Value: []byte("2"), CreateRevision: 2, ModRevision: 4, Version: 2}
	again := &mvccpb.KeyValue{Key: []byte("c"), Value: []byte("3"), CreateRevision: 6, ModRevision: 6, Version: 1}
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		put(tx, revisionKey(2, 0), &mvccpb.KeyValue{Key: []byte("b"), Value: []byte("1"), CreateRevision: 2, ModRevision: 2, Version: 1})
		put(tx, revisionKey(2, 1), &mvccpb.KeyValue{Key: []byte("a"), CreateRevision: 2, ModRevision: 2, Version: 1})
		put(tx, revisionKey(2, 2), &mvccpb.KeyValue{Key: []byte("c"), CreateRevision: 2, ModRevision: 2, Version: 1})
		put(tx, revisionKey(4, 0), kept)
		put(tx, append(revisionKey(5, 0), tombstone), &mvccpb.KeyValue{Key: []byte("a")})
		put(tx, append(revisionKey(5, 1), tombstone), &mvccpb.KeyValue{Key: []byte("c")})
		put(tx, revisionKey(6, 0), again)
		put(tx, append(revisionKey(8, 0), tombstone), &mvccpb.KeyValue{Key: []byte("zz")})
		return tx.Bucket([]byte("authUsers")).Put([]byte("root"), []byte("…"))
	}))
	require.NoError(t, db.Close())

	_, err = Open(path, t.TempDir(), true)
	require.ErrorIs(t, err, ErrChecksum) // the change has kept the old one
	f, err := Open(path, t.TempDir(), false)
	require.NoError(t, err)
	requireSame(t, []*mvccpb.KeyValue{kept, again}, latest(t, f))
	require.Equal(t, Info{Revision: 8, Keys: 2, Bytes: f.Bytes, Version: StorageVersion, Users: true}, f.Info)
	require.NoError(t, f.Close())
}

func TestFilesThatAreNoSnapshots(t *testing.T) {
	var kvs []*mvccpb.KeyValue
	for i := range 500 {
		kvs = append(kvs, &mvccpb.KeyValue{Key: fmt.Append(nil, i), Value: make([]byte, 200), ModRevision: int64(i + 2), CreateRevision: 2, Version: 1})
	}
	good, err := os.ReadFile(written(t, runBytes, 1000, nil, kvs...))
	require.NoError(t, err)
	other := filepath.Join(t.TempDir(), "other.db")
	db, err := bbolt.Open(other, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	foreign, err := os.ReadFile(other)
	require.NoError(t, err)

	flipped := bytes.Clone(good)
	flipped[len(good)/2] ^= 1
	for name, c := range map[string]struct {
		content []byte
		want    error
		trusted error // of a file whose checksum is not compared
	}{
		"empty":                         {nil, ErrNoChecksum, ErrDamaged},
		"text":                          {[]byte("key value\n"), ErrNoChecksum, ErrDamaged},
		"text with a checksum":          {summed(make([]byte, 512)), ErrDamaged, ErrDamaged},
		"one bit":                       {flipped, ErrChecksum, nil},
		"cut off":                       {good[:len(good)-1000], ErrNoChecksum, ErrDamaged},
		"cut off by whole sectors":      {good[:len(good)-2*4096], ErrChecksum, ErrDamaged},
		"without its checksum":          {good[:len(good)-sha256.Size], ErrNoChecksum, nil},
		"half, with a checksum":         {summed(good[:len(good)/2/4096*4096]), ErrDamaged, ErrDamaged},
		"one page, with a checksum":     {summed(good[:4096]), ErrDamaged, ErrDamaged},
		"another database":              {foreign, ErrNoChecksum, ErrDamaged},
		"another database with its sum": {summed(foreign), ErrDamaged, ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			path, temp := save(t, c.content), t.TempDir()
			_, err := Open(path, temp, true)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, path)
			f, err := Open(path, temp, false)
			require.ErrorIs(t, err, c.trusted)
			if f != nil {
				require.Len(t, latest(t, f), len(kvs))
				require.NoError(t, f.Close())
			}
			left, err := os.ReadDir(temp)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
	_, err = Open(t.TempDir(), t.TempDir(), true)
	require.ErrorIs(t, err, ErrDamaged)
	_, err = Open(filepath.Join(t.TempDir(), "none"), t.TempDir(), true)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A builder that gets no room stops, wherever it is, and leaves nothing.
func TestNoRoom(t *testing.T) {
	full := errors.New("full")
	for after := range 8 {
		dir := filepath.Join(t.TempDir(), "build")
		require.NoError(t, os.Mkdir(dir, 0o700))
		asked := 0
		b := newBuilder(dir, 2_000_000, func(int64) error {
			if asked++; asked > after {
				return full
			}
			return nil
		})
		var err error
		for i := 0; i < 100_000 && err == nil; i++ {
			err = b.Add(&mvccpb.KeyValue{Key: fmt.Append(nil, i), Value: make([]byte, 100), ModRevision: 5})
		}
		if err == nil {
			_, _, err = b.Finish(9, nil)
		}
		require.ErrorIs(t, err, full)
		require.NoError(t, b.Close())
		require.NoDirExists(t, dir)
	}
}
