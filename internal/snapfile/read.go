package snapfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime/debug"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// sumAlign tells a file with a checksum from one without: databases are whole pages.
const sumAlign = 512

var (
	// ErrNoChecksum says that a file ends without a checksum: it is incomplete, or was copied from a data directory.
	ErrNoChecksum = errors.New("it does not end with a checksum")
	// ErrChecksum says that the file is not what was written.
	ErrChecksum = errors.New("its checksum does not match")
	// ErrDamaged says that the file is no database, or a damaged one.
	ErrDamaged = errors.New("it is not a snapshot, or damaged")
)

// Info describes a file.
type Info struct {
	Revision int64  `json:"revision"` // of the last record
	Keys     int64  `json:"keys"`     // that exist at it
	Leases   int64  `json:"leases"`
	Bytes    int64  `json:"bytes"`
	Version  string `json:"version,omitempty"` // of etcd's storage; empty before 3.6
	// Users: it contains users or roles.
	Users bool `json:"users"`
	// Checksum: there was one, and it matches.
	Checksum bool `json:"checksum"`
}

// File is an open file.
type File struct {
	Info
	// LeaseTTLs are the leases' TTLs in seconds, by ID.
	LeaseTTLs map[int64]int64

	db   *bbolt.DB
	dir  string
	keys *sorter // the versions, by key and revision
}

// Open checks a file and reads what it holds. Its keys are sorted in a new directory below temp (K1). Without
// checksum it also opens a file that has none, or a wrong one.
func Open(path, temp string, checksum bool) (_ *File, err error) {
	f := &File{LeaseTTLs: map[int64]int64{}}
	if err := f.verify(path); err != nil && (checksum || !errors.Is(err, ErrNoChecksum) && !errors.Is(err, ErrChecksum)) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
		}
	}()
	// bbolt maps the file into memory and believes what it finds there, as a file that is too short shows. A damaged file
	// without a checksum can still end the process.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	if f.db, err = bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true, NoStatistics: true}); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if f.dir, err = os.MkdirTemp(temp, "flotilla-restore-"); err != nil {
		return nil, err
	}
	f.keys = newSorter(f.dir, runBytes, func(int64) error { return nil })
	if err := f.db.View(f.read); err != nil {
		return nil, err
	}
	return f, nil
}

// Close removes what Open has sorted.
func (f *File) Close() error {
	var errs []error
	if f.keys != nil {
		errs = append(errs, f.keys.close())
	}
	if f.dir != "" {
		errs = append(errs, os.RemoveAll(f.dir))
	}
	if f.db != nil {
		errs = append(errs, f.db.Close())
	}
	return errors.Join(errs...)
}

// verify compares the checksum (K5).
func (f *File) verify(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is no file", ErrDamaged)
	}
	f.Bytes = info.Size()
	if f.Bytes%sumAlign != sha256.Size {
		return ErrNoChecksum
	}
	h := sha256.New()
	if _, err := io.CopyN(h, file, f.Bytes-sha256.Size); err != nil {
		return err
	}
	sum := make([]byte, sha256.Size)
	if _, err := io.ReadFull(file, sum); err != nil {
		return err
	}
	if !bytes.Equal(sum, h.Sum(nil)) {
		return ErrChecksum
	}
	f.Checksum = true
	return nil
}

// read checks the database and takes its content.
func (f *File) read(tx *bbolt.Tx) error {
	if tx.Size() > f.Bytes {
		return fmt.Errorf("%w: it has %d bytes of %d", ErrDamaged, f.Bytes, tx.Size())
	}
	keys, leases, meta := tx.Bucket([]byte(bucketKey)), tx.Bucket([]byte(bucketLease)), tx.Bucket([]byte(bucketMeta))
	if keys == nil || meta == nil {
		return fmt.Errorf("%w: a database, but not etcd's", ErrDamaged)
	}
	f.Version = string(meta.Get([]byte(metaVersion)))
	for _, name := range []string{"authUsers", "authRoles"} {
		if b := tx.Bucket([]byte(name)); b != nil {
			first, _ := b.Cursor().First()
			f.Users = f.Users || first != nil
		}
	}
	if leases != nil {
		if err := leases.ForEach(f.readLease); err != nil {
			return err
		}
	}
	f.Leases = int64(len(f.LeaseTTLs))
	if err := keys.ForEach(f.readVersion); err != nil {
		return err
	}
	var bad error
	for err := range tx.Check() {
		if bad == nil {
			bad = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	if bad != nil {
		return bad
	}
	for range f.Latest(&bad) {
		f.Keys++
	}
	return bad
}

func (f *File) readLease(_, body []byte) error {
	var id, ttl int64
	for len(body) > 0 {
		field, kind, n := protowire.ConsumeTag(body)
		if n < 0 {
			return fmt.Errorf("%w: a lease: %w", ErrDamaged, protowire.ParseError(n))
		}
		body = body[n:]
		if n = protowire.ConsumeFieldValue(field, kind, body); n < 0 {
			return fmt.Errorf("%w: a lease: %w", ErrDamaged, protowire.ParseError(n))
		}
		if v, m := protowire.ConsumeVarint(body); m > 0 && kind == protowire.VarintType {
			switch field {
			case 1:
				id = int64(v)
			case 2:
				ttl = int64(v)
			}
		}
		body = body[n:]
	}
	f.LeaseTTLs[id] = ttl
	return nil
}

const (
	revisionBytes = 17
	tombstone     = 't'
)

func (f *File) readVersion(at, body []byte) error {
	deleted := len(at) == revisionBytes+1 && at[revisionBytes] == tombstone
	if len(at) != revisionBytes && !deleted {
		return fmt.Errorf("%w: a version at %x", ErrDamaged, at)
	}
	f.Revision = int64(binary.BigEndian.Uint64(at))
	var kv mvccpb.KeyValue
	if err := proto.Unmarshal(body, &kv); err != nil {
		return fmt.Errorf("%w: version %x: %w", ErrDamaged, at, err)
	}
	if deleted {
		body = nil
	}
	if len(kv.Key) == 0 {
		return nil // no client can have written it: it marks a revision
	}
	return f.keys.add(append(ordered(kv.Key), at[:revisionBytes]...), body)
}

// ordered encodes a key so that what follows it does not change the order.
func ordered(key []byte) []byte {
	out := make([]byte, 0, len(key)+2+revisionBytes)
	for _, c := range key {
		if out = append(out, c); c == 0 {
			out = append(out, 0xff)
		}
	}
	return append(out, 0, 0)
}

// Latest yields the keys that exist at the last revision, in key order. It stops at an error, which
// it leaves in failed. A key is valid until the next.
func (f *File) Latest(failed *error) iter.Seq[*mvccpb.KeyValue] {
	return func(yield func(*mvccpb.KeyValue) bool) {
		sorted, err := f.keys.sorted()
		var key, body, last []byte // last: the latest version so far of key, which is encoded
		for err == nil {
			var at, next []byte
			at, next, err = sorted.next()
			if err != nil && !errors.Is(err, io.EOF) {
				break // last may not be the latest
			}
			if err == nil && key != nil && bytes.Equal(key, at[:len(at)-revisionBytes]) {
				body = append(body[:0], next...)
				last = body
				continue
			}
			if len(last) > 0 {
				kv := &mvccpb.KeyValue{}
				if bad := proto.Unmarshal(last, kv); bad != nil {
					*failed = bad
					return
				}
				if !yield(kv) {
					return
				}
			}
			if err == nil {
				key = append(key[:0], at[:len(at)-revisionBytes]...)
				body = append(body[:0], next...)
				last = body
			}
		}
		if !errors.Is(err, io.EOF) {
			*failed = err
		}
	}
}
