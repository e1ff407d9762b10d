package cmd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// importWriters is how many puts are under way. A file may have a key twice: all puts of a key have the same
	// writer, so that the last line wins.
	importWriters = 64
	// importLineMax is longer than any line of what a request can carry, however it is escaped.
	importLineMax = 64 << 20
)

func newImport(client *clientFlags) *cobra.Command {
	var i importFlags
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Write the keys and values that flotilla export has written",
		Example: `  flotilla import config.jsonl
  flotilla import config.jsonl --prefix-from prod/ --prefix-to staging/
  gunzip < all.jsonl.gz | flotilla import -
  flotilla export --endpoints 10.0.0.1:2379 - | flotilla import -
  flotilla import --partial made-by-hand.jsonl`,
		Long: `Write the keys and values of FILE, or of standard input for -, which has a JSON
object a line, as flotilla export --help tells. Keys that are there already are
overwritten, unless --if-absent is given; others stay.

Keys are written one by one, several at a time: this is no transaction. If it fails
the keys of some lines are written, and importing again does no harm. It fails at the
end if the last line, which counts the others, is missing or wrong: the file, or what
came through a pipe, was cut off. --partial is for files without that line.

Leases are granted under their IDs and for the whole TTL. One that exists is used if it
was granted for the same TTL, and refused otherwise: it is likely to be somebody else's.
Keys whose lease had ended when they were exported are left out.`,
		Args: wantArgs(1, 1, "FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if i.from == "" && i.to != "" {
				return misused("--prefix-to wants --prefix-from too; to put something before all keys, edit the file")
			}
			return client.connected(c, lines(), func(s *session) error {
				if args[0] == standard {
					return s.load(&i, s.in, 0)
				}
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				info, err := f.Stat()
				if err != nil {
					return err
				}
				return s.load(&i, f, info.Size())
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&i.ifAbsent, "if-absent", false, "leave keys alone that are there already")
	f.BoolVar(&i.partial, "partial", false, "take what there is: neither want the last line nor compare its number of keys")
	f.StringVar(&i.from, "prefix-from", "", "refuse keys that do not begin so, and ...")
	f.StringVar(&i.to, "prefix-to", "", "... have those that do begin so instead")
	return c
}

type importFlags struct {
	ifAbsent, partial bool
	from, to          string
}

// imported is what import tells at its end.
type imported struct {
	Keys    int64 `json:"keys"`
	Present int64 `json:"present,omitempty"` // already, with --if-absent
	Ended   int64 `json:"ended,omitempty"`   // left out: their leases had ended
	Leases  int   `json:"leases"`            // granted
	Existed int   `json:"leases_present,omitempty"`
}

func (i imported) text() string {
	text := fmt.Sprintf("imported %s, granted %s", counted(int(i.Keys), "key"), counted(i.Leases, "lease"))
	if i.Present > 0 {
		text += fmt.Sprintf("; %s there already and left alone", isOrAre(int(i.Present), "key"))
	}
	if i.Ended > 0 {
		text += fmt.Sprintf("; %s left out, their leases had ended before the export", isOrAre(int(i.Ended), "key"))
	}
	if i.Existed > 0 {
		text += fmt.Sprintf("; %s existed already", counted(i.Existed, "lease"))
	}
	return text
}

// record is a line that is to be written.
type record struct {
	line  int
	key   string
	value string
	lease int64
}

// importer reads lines and hands them to writers.
type importer struct {
	*session
	flags   *importFlags
	leases  map[int64]bool // that exist now; false: it had ended before the export
	granted int
	existed int
	ended   int64
	pairs   int64 // lines of the file that have a key
	// whole: the last line came, and it counts what came before.
	whole bool

	keys, present atomic.Int64
	unknown       atomic.Bool // whether a key was written whose put failed
}

// load imports what r has; size is 0 where it is not known.
func (s *session) load(flags *importFlags, r io.Reader, size int64) (err error) {
	progress := newFollower(s.err)
	defer func() { progress.end(err == nil) }()
	i := &importer{session: s, flags: flags, leases: make(map[int64]bool)}
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	var writers [importWriters]chan record
	var writing sync.WaitGroup
	for w := range writers {
		writers[w] = make(chan record, 1)
		writing.Go(func() {
			for rec := range writers[w] {
				if err := i.write(ctx, rec); err != nil {
					cancel(err) // the first counts
				}
			}
		})
	}
	seed, done := maphash.MakeSeed(), int64(0)
	err = i.read(ctx, interruptible{ctx, r}, func(rec record, bytes int) {
		writers[maphash.String(seed, rec.key)%importWriters] <- rec
		if done += int64(bytes); size > 0 {
			progress.show(stage{state: "writing keys", left: size - done})
		}
	})
	for _, w := range writers {
		close(w)
	}
	writing.Wait()
	if failed := context.Cause(ctx); failed != nil {
		err = failed
	}
	if err != nil {
		return i.incomplete(err)
	}
	sum := imported{Keys: i.keys.Load(), Present: i.present.Load(), Ended: i.ended, Leases: i.granted, Existed: i.existed}
	return s.print(answer{message: sum, simple: func() { s.line(sum.text()) }})
}

// incomplete tells what was done before the error.
func (i *importer) incomplete(err error) error {
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	if i.keys.Load() == 0 && !i.unknown.Load() {
		return fmt.Errorf("%w; no key was written", err)
	}
	err = fmt.Errorf("%w; %s written before, importing again does no harm", err, isOrAre(int(i.keys.Load()), "key"))
	if i.unknown.Load() {
		return &failure{exitUnknown, err}
	}
	return err
}

// read hands each line to take, with its length, until ctx ends.
func (i *importer) read(ctx context.Context, r io.Reader, take func(record, int)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 1<<16), importLineMax)
	n := 0
	for lines.Scan() {
		n++
		if ctx.Err() != nil {
			return nil // why is told by who ended it
		}
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		rec, err := i.parse(lines.Bytes())
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		rec.line = n
		if rec.key != "" {
			take(rec, len(lines.Bytes())+1)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	if !i.whole && !i.flags.partial {
		return fmt.Errorf(`the file ends before its last line, {"end":...}, after %s: it was cut off, or made by something else, for which there is --partial`,
			counted(int(i.pairs), "key"))
	}
	return nil
}

// finish takes the last line. It comes too late to write nothing, since a stream is not read twice.
func (i *importer) finish(end *endLine) error {
	if !i.flags.partial && end.Keys != i.pairs {
		return fmt.Errorf("the file had %s when it was written, and %s came before its end: lines were lost or changed; --partial takes those that are there",
			counted(int(end.Keys), "key"), counted(int(i.pairs), "key"))
	}
	i.whole = true
	return nil
}

// parse returns a record without a key for a line that is left out.
func (i *importer) parse(line []byte) (record, error) {
	if !utf8.Valid(line) {
		return record{}, errors.New("it is no UTF-8; bytes that are no text are written as key_base64 and value_base64")
	}
	var l pairLine
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields() // a misspelt lease would make a key that never goes
	if err := d.Decode(&l); err != nil {
		return record{}, fmt.Errorf("want a JSON object as flotilla export writes it: %w", err)
	}
	if d.More() {
		return record{}, errors.New("want one JSON object a line")
	}
	if i.whole && !i.flags.partial {
		return record{}, errors.New("it comes after the end of the file; --partial takes several files, one after the other")
	}
	if end := l.End; end != nil {
		if l.Key != nil || l.KeyBase64 != nil || l.Value != nil || l.ValueBase64 != nil {
			return record{}, errors.New("end is a line of its own")
		}
		return record{}, i.finish(end)
	}
	i.pairs++
	key, err := either("key", l.Key, l.KeyBase64)
	if err == nil && key == "" {
		err = errors.New("the key is empty")
	}
	if err != nil {
		return record{}, err
	}
	value, err := either("value", l.Value, l.ValueBase64)
	if err != nil {
		return record{}, fmt.Errorf("key %.64q: %w", key, err)
	}
	if key, err = i.rename(key); err != nil {
		return record{}, err
	}
	rec := record{key: key, value: value}
	if l.Lease == "" {
		return rec, nil
	}
	id, err := parseLease(l.Lease)
	if err != nil {
		return record{}, fmt.Errorf("key %.64q: %w", key, err)
	}
	rec.lease = int64(id)
	alive, err := i.lease(rec.lease, l.TTL)
	if err != nil {
		return record{}, fmt.Errorf("key %.64q: %w", key, err)
	}
	if !alive {
		i.ended++
		return record{}, nil
	}
	return rec, nil
}

func (i *importer) rename(key string) (string, error) {
	rest, begins := strings.CutPrefix(key, i.flags.from)
	if !begins {
		return "", fmt.Errorf("key %.64q does not begin with --prefix-from %q", key, i.flags.from)
	}
	if i.flags.to+rest == "" {
		return "", fmt.Errorf("key %.64q would be empty without --prefix-from", key)
	}
	return i.flags.to + rest, nil
}

// either is one of two fields of a line.
func either(name string, text *string, encoded []byte) (string, error) {
	switch {
	case text != nil && encoded != nil:
		return "", fmt.Errorf("%s and %s_base64 exclude each other", name, name)
	case text != nil:
		return *text, nil
	case encoded != nil:
		return string(encoded), nil
	}
	return "", fmt.Errorf("%s is missing", name)
}

// lease grants a lease, or finds that it exists, once, and keeps it until the command ends: keys of short ones would go
// before the last is there. It reports whether there is one.
func (i *importer) lease(id, ttl int64) (bool, error) {
	if alive, known := i.leases[id]; known {
		return alive, nil
	}
	if i.leases[id] = ttl > 0; ttl <= 0 {
		return false, nil
	}
	exists, err := i.grant(id, ttl)
	if err != nil {
		return false, fmt.Errorf("grant lease %s: %w", leaseName(id), err)
	}
	if exists {
		i.existed++
	} else {
		i.granted++
	}
	renewed, err := i.KeepAlive(i.ctx, clientv3.LeaseID(id))
	if err != nil {
		return false, fmt.Errorf("renew lease %s: %w", leaseName(id), err)
	}
	go func() {
		for range renewed { // it ends with the client
		}
	}()
	return true, nil
}

// grant reports whether the lease was there already. One with another TTL is refused: the ID may have been given to
// somebody else, and the keys would go when his lease ends.
func (i *importer) grant(id, ttl int64) (exists bool, err error) {
	_, err = write(i.session, func(ctx context.Context) (*pb.LeaseGrantResponse, error) {
		resp, err := pb.NewLeaseClient(i.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl})
		if err = rpctypes.Error(err); errors.Is(err, rpctypes.ErrLeaseExist) {
			exists, err = true, nil
		}
		return resp, err
	})
	if err != nil || !exists {
		return false, err
	}
	there, err := read(i.session, func(ctx context.Context) (*clientv3.LeaseTimeToLiveResponse, error) {
		return i.TimeToLive(ctx, clientv3.LeaseID(id))
	})
	switch {
	case err != nil:
		return false, fmt.Errorf("ask for the one that exists: %w", err)
	case there.TTL < 0:
		return false, errors.New("one existed, and has ended just now; import again")
	case there.GrantedTTL != ttl:
		return false, fmt.Errorf("one exists that was granted for %d s, and the file has %d s: it may be somebody else's; "+
			"flotilla lease timetolive %s --keys shows its keys. Revoke it, or change the lines of the file", there.GrantedTTL, ttl, leaseName(id))
	}
	return true, nil
}

func (i *importer) write(ctx context.Context, rec record) error {
	if ctx.Err() != nil {
		return nil
	}
	put := clientv3.OpPut(rec.key, rec.value, clientv3.WithLease(clientv3.LeaseID(rec.lease)))
	done := true
	_, err := write(i.session, func(ctx context.Context) (resp clientv3.OpResponse, err error) {
		if !i.flags.ifAbsent {
			return i.Do(ctx, put)
		}
		txn, err := i.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(rec.key), "=", 0)).Then(put).Commit()
		if err == nil {
			done = txn.Succeeded
		}
		return resp, err
	})
	switch {
	case err != nil:
		if exitCode(err) == exitUnknown {
			i.unknown.Store(true)
		}
		return fmt.Errorf("line %d: put %.64q: %w", rec.line, rec.key, err)
	case done:
		i.keys.Add(1)
	default:
		i.present.Add(1)
	}
	return nil
}
