package snapfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// StorageVersion is the version of etcd's storage in the files: the first that has a number. Later ones read it.
const StorageVersion = "3.6.0"

// Names of buckets and of records in them; etcd's, as are all their values.
const (
	bucketKey   = "key"
	bucketLease = "lease"
	bucketMeta  = "meta"

	metaIndex     = "consistent_index"
	metaTerm      = "term"
	metaConfState = "confState"
	metaVersion   = "storageVersion"
	metaScheduled = "scheduledCompactRev"
	metaFinished  = "finishedCompactRev"
)

// emptyBuckets are expected by etcd, and filled by a restore.
func emptyBuckets() []string {
	return []string{"alarm", "auth", "authRoles", "authUsers", "cluster", "members", "members_removed"}
}

const (
	pageSize = 4096 // a multiple of 512, by which etcdctl recognises the checksum
	// commitBytes is how much is written in one transaction of bbolt, which keeps it in memory.
	commitBytes = 4 << 20
	// growBytes is by how much the file grows.
	growBytes = 1 << 20
	// fillPercent: records come in order and none is added later.
	fillPercent = 0.95
	// recordBytes is roughly what bbolt adds to a record.
	recordBytes = 64
)

// Builder makes a file.
type Builder struct {
	dir  string
	room room
	keys *sorter
	sub  uint64
}

// NewBuilder makes a file in a directory that does not exist yet, and is the builder's. room is asked
// before so many bytes more are written there; its error ends the building.
func NewBuilder(dir string, room func(bytes int64) error) (*Builder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create a directory for a snapshot: %w", err)
	}
	return newBuilder(dir, runBytes, room), nil
}

func newBuilder(dir string, max int, room room) *Builder {
	return &Builder{dir: dir, room: room, keys: newSorter(dir, max, room)}
}

// Close removes everything.
func (b *Builder) Close() error {
	return errors.Join(b.keys.close(), os.RemoveAll(b.dir))
}

// Add takes the state of a key, each key once.
func (b *Builder) Add(kv *mvccpb.KeyValue) error {
	body, err := proto.Marshal(kv)
	if err != nil {
		return fmt.Errorf("encode key %.64q: %w", kv.Key, err)
	}
	b.sub++
	return b.keys.add(revisionKey(kv.ModRevision, b.sub), body)
}

// revisionKey is etcd's key of a version: the revision, and its place among the changes of one
// transaction.
func revisionKey(main int64, sub uint64) []byte {
	key := binary.BigEndian.AppendUint64(make([]byte, 0, 18), uint64(main))
	return binary.BigEndian.AppendUint64(append(key, '_'), sub)
}

// Compacted is the revision up to which a restored etcd says that its history is compacted, for a cut at a
// revision. A cut contains no deletions made at its own revision, so a watch must not begin there
// either (K4).
func Compacted(cut int64) int64 { return cut + 1 }

// Finish writes the file and returns its content without the checksum, to be read from the start. leases are IDs with TTLs in
// seconds; a lease that has keys but is not among them was ending at the cut and gets the shortest TTL.
// The caller closes the file.
func (b *Builder) Finish(cut int64, leases map[int64]int64) (f *os.File, bytes int64, err error) {
	path := filepath.Join(b.dir, "db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoGrowSync: true, NoStatistics: true, PageSize: pageSize, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, 0, fmt.Errorf("create a snapshot: %w", err)
	}
	db.AllocSize = growBytes
	w := &writer{db: db, room: b.room, leases: maps.Clone(leases)}
	if w.leases == nil {
		w.leases = map[int64]int64{}
	}
	bytes, err = w.all(b.keys, cut)
	if err = errors.Join(err, db.Close()); err != nil {
		return nil, 0, fmt.Errorf("write a snapshot: %w", err)
	}
	if f, err = os.Open(path); err != nil {
		return nil, 0, fmt.Errorf("read a snapshot: %w", err)
	}
	return f, bytes, nil
}

// writer fills a database, transaction by transaction.
type writer struct {
	db     *bbolt.DB
	room   room
	leases map[int64]int64

	tx      *bbolt.Tx
	pending int
}

// all returns the size of the database.
func (w *writer) all(keys *sorter, cut int64) (int64, error) {
	defer func() {
		if w.tx != nil {
			_ = w.tx.Rollback() // after an error, which is returned
		}
	}()
	if err := w.begin(); err != nil {
		return 0, err
	}
	for _, step := range []func() error{
		w.makeBuckets,
		func() error { return w.keys(keys, cut) },
		w.putLeases,
		func() error { return w.meta(cut) },
		w.commit,
	} {
		if err := step(); err != nil {
			return 0, err
		}
	}
	var size int64
	err := w.db.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	})
	return size, err
}

func (w *writer) begin() (err error) {
	w.pending = 0
	w.tx, err = w.db.Begin(true)
	return err
}

func (w *writer) commit() error {
	if err := w.room(int64(w.pending) + growBytes); err != nil {
		return err
	}
	tx := w.tx
	w.tx = nil
	return tx.Commit()
}

// put keeps key and value until the transaction is committed.
func (w *writer) put(bucket string, key, value []byte) error {
	b := w.tx.Bucket([]byte(bucket))
	b.FillPercent = fillPercent
	if err := b.Put(key, value); err != nil {
		return err
	}
	w.pending += len(key) + len(value) + recordBytes
	if w.pending < commitBytes {
		return nil
	}
	if err := w.commit(); err != nil {
		return err
	}
	return w.begin()
}

func (w *writer) makeBuckets() error {
	for _, name := range append(emptyBuckets(), bucketKey, bucketLease, bucketMeta) {
		if _, err := w.tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	return nil
}

// keys writes the versions in order of revision (K3), and marks the end.
func (w *writer) keys(keys *sorter, cut int64) error {
	sorted, err := keys.sorted()
	if err != nil {
		return err
	}
	var main, sub uint64
	for {
		key, body, err := sorted.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if at := binary.BigEndian.Uint64(key); at != main {
			main, sub = at, 0
		}
		if int64(main) > cut {
			return fmt.Errorf("a key of revision %d in a cut at %d", main, cut)
		}
		if err := w.put(bucketKey, revisionKey(int64(main), sub), append([]byte(nil), body...)); err != nil {
			return err
		}
		sub++
		var kv mvccpb.KeyValue
		if err := proto.Unmarshal(body, &kv); err != nil {
			return err
		}
		if _, known := w.leases[kv.Lease]; !known && kv.Lease != 0 {
			w.leases[kv.Lease] = 1
		}
	}
	if cut <= 1 {
		return nil
	}
	// The deletion of a key that never was. A restored etcd, and etcdutl's --bump-revision, count on from the last
	// record, which can be far below the cut when the last changes were deletions.
	return w.put(bucketKey, append(revisionKey(Compacted(cut), 0), 't'), []byte{})
}

func (w *writer) putLeases() error {
	for _, id := range slices.Sorted(maps.Keys(w.leases)) {
		var body []byte
		body = protowire.AppendTag(body, 1, protowire.VarintType)
		body = protowire.AppendVarint(body, uint64(id))
		body = protowire.AppendTag(body, 2, protowire.VarintType)
		body = protowire.AppendVarint(body, uint64(w.leases[id]))
		if err := w.put(bucketLease, number(uint64(id)), body); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) meta(cut int64) error {
	records := map[string][]byte{
		metaIndex:     number(1),
		metaTerm:      number(1),
		metaConfState: []byte(`{"voters":[1],"auto_leave":false}`),
		metaVersion:   []byte(StorageVersion),
	}
	if cut > 1 {
		records[metaScheduled] = revisionKey(Compacted(cut), 0)
		records[metaFinished] = revisionKey(Compacted(cut), 0)
	}
	for _, name := range slices.Sorted(maps.Keys(records)) {
		if err := w.put(bucketMeta, []byte(name), records[name]); err != nil {
			return err
		}
	}
	return nil
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
