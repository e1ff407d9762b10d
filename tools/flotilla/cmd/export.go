package cmd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
)

// standard is the FILE that stands for standard input or output.
const standard = "-"

// pairLine is one line of an exported file: a key and its value, or the end. Key and value are text, or base64 if they
// are no UTF-8.
type pairLine struct {
	Key         *string `json:"key,omitempty"`
	KeyBase64   []byte  `json:"key_base64,omitempty"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 []byte  `json:"value_base64,omitempty"`
	// Lease is its ID in hexadecimal digits, TTL the seconds that it was granted for; 0: the lease had ended.
	Lease string `json:"lease,omitempty"`
	TTL   int64  `json:"ttl,omitempty"`
	// ModRevision is for people and other programs; keys that are imported get revisions anew.
	ModRevision int64 `json:"mod_revision,omitempty"`
	// End is in the last line, and alone there.
	End *endLine `json:"end,omitempty"`
}

// endLine is the last line of an exported file. Without it nobody could tell a stream that was torn from a whole one.
type endLine struct {
	Revision int64 `json:"revision"`
	Keys     int64 `json:"keys"` // lines before this one
}

func newPairLine(kv *mvccpb.KeyValue) pairLine {
	l := pairLine{ModRevision: kv.ModRevision}
	l.Key, l.KeyBase64 = textOrBytes(kv.Key)
	l.Value, l.ValueBase64 = textOrBytes(kv.Value)
	if kv.Lease != 0 {
		l.Lease = leaseName(kv.Lease)
	}
	return l
}

func textOrBytes(b []byte) (*string, []byte) {
	if !utf8.Valid(b) {
		return nil, b
	}
	text := string(b)
	return &text, nil
}

func newExport(client *clientFlags) *cobra.Command {
	var e exportFlags
	c := &cobra.Command{
		Use:   "export [KEY [RANGE_END]] FILE",
		Short: "Write keys and values as lines of JSON",
		Example: `  flotilla export --prefix config/ config.jsonl
  flotilla export - | gzip > all.jsonl.gz`,
		Long: `Write keys and values to FILE, or to standard output for -, as of one revision:
a JSON object a line, in the order of keys. Without KEY and --prefix, all. FILE appears
under its name when it is complete, and not at all if the export fails.

key and value are text; what is no UTF-8 is in base64 as key_base64 and
value_base64. lease and ttl are the ID and the seconds of the key's lease, and
mod_revision is when it was changed. The last line is end, with the revision and the
number of keys: without it, something is missing. flotilla import reads the file. For
all of a cluster, leases without keys included, see flotilla backup.`,
		Args: wantArgs(1, 3, "FILE, after KEY or KEY RANGE_END if not all keys are wanted"),
		RunE: func(c *cobra.Command, args []string) error {
			last := len(args) - 1
			keys, file := args[:last], args[last]
			if err := e.check(keys, file); err != nil {
				return err
			}
			return client.connected(c, lines(), func(s *session) error { return s.export(&e, keys, file) })
		},
	}
	f := c.Flags()
	f.StringVar(&e.prefix, "prefix", "", "only keys that begin so")
	f.Int64Var(&e.rev, "rev", 0, "as it was at this revision (0: now)")
	f.BoolVar(&e.force, "force", false, "replace FILE if it exists")
	return c
}

type exportFlags struct {
	prefix string
	rev    int64
	force  bool
}

func (e *exportFlags) check(keys []string, file string) error {
	if len(keys) > 0 && e.prefix != "" {
		return misused("KEY and --prefix exclude each other")
	}
	if e.rev < 0 {
		return misused("--rev %d: want a revision, or 0 for now", e.rev)
	}
	if _, err := os.Stat(file); file != standard && err == nil && !e.force {
		return fmt.Errorf("%s exists; --force replaces it", file)
	}
	return nil
}

// span returns the first key and the end of what is asked for. Only a single key has no end.
func (e *exportFlags) span(keys []string) (start, end string) {
	switch {
	case len(keys) == 2:
		return keys[0], keys[1]
	case len(keys) == 1:
		return keys[0], ""
	case e.prefix != "":
		return e.prefix, clientv3.GetPrefixRangeEnd(e.prefix)
	}
	return "\x00", "\x00" // all, as etcd writes it
}

// exported is what export tells at its end.
type exported struct {
	Revision int64 `json:"revision"`
	Keys     int64 `json:"keys"`
	Leases   int   `json:"leases"`
}

// export tells what it wrote when that is there for good.
func (s *session) export(e *exportFlags, keys []string, file string) error {
	told := s.printer
	var done exported
	var err error
	if file == standard {
		told.out = s.err // the keys are on the other
		done, err = s.exportTo(e, keys, s.out)
	} else {
		done, err = s.exportFile(e, keys, file)
	}
	if err != nil {
		return err
	}
	return told.print(answer{message: done, simple: func() { told.line(done.text()) }})
}

func (s *session) exportFile(e *exportFlags, keys []string, file string) (done exported, err error) {
	f, err := createPart(file)
	if err != nil {
		return exported{}, err
	}
	part := f.Name()
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(part)))
		}
	}()
	done, err = s.exportTo(e, keys, f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return exported{}, err
	}
	return done, install(part, file)
}

// ignoreMissing drops the error of removing what has its name already.
func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (s *session) exportTo(e *exportFlags, keys []string, w io.Writer) (done exported, err error) {
	start, end := e.span(keys)
	x := &exporter{session: s, end: end, rev: e.rev, out: bufio.NewWriterSize(w, 1<<16), ttls: make(map[int64]int64)}
	x.json = json.NewEncoder(x.out)
	x.json.SetEscapeHTML(false)
	// The revision of this answer is that of everything that follows.
	all, err := read(s, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return s.Get(ctx, start, x.options(clientv3.WithCountOnly())...)
	})
	if err != nil {
		return exported{}, err
	}
	if x.rev == 0 {
		x.rev = all.Header.Revision
	}
	x.left = all.Count
	x.progress = newFollower(s.err)
	defer func() { x.progress.end(err == nil) }()
	if x.left > 0 { // an empty cluster may have no revision that can be read
		if err := x.run(start); err != nil {
			return exported{}, fmt.Errorf("export at revision %d, after %d keys: %w", x.rev, x.done.Keys, err)
		}
	}
	if x.left != 0 {
		return exported{}, fmt.Errorf("%d keys at revision %d were counted, and %d came", all.Count, x.rev, x.done.Keys)
	}
	x.done.Revision, x.done.Leases = x.rev, len(x.ttls)
	if err = x.json.Encode(pairLine{End: &endLine{Revision: x.rev, Keys: x.done.Keys}}); err == nil {
		err = x.out.Flush()
	}
	if err != nil {
		return exported{}, fmt.Errorf("write: %w", err)
	}
	return x.done, nil
}

func (e exported) text() string {
	return fmt.Sprintf("revision %d, %s, %s", e.Revision, counted(int(e.Keys), "key"), counted(e.Leases, "lease"))
}

// exporter writes the keys of a span, one after the other.
type exporter struct {
	*session
	end      string
	rev      int64
	out      *bufio.Writer
	json     *json.Encoder
	ttls     map[int64]int64 // of the leases seen, by ID
	left     int64
	done     exported
	last     []byte // key that was written last
	progress follower
}

func (x *exporter) options(more ...clientv3.OpOption) []clientv3.OpOption {
	if x.end != "" {
		more = append(more, clientv3.WithRange(x.end))
	}
	return append(more, clientv3.WithRev(x.rev))
}

// exportRetries is how many streams in a row may end without having brought anything.
const exportRetries = 5

// run reads a stream after the other, until there are no more keys: each goes on where the last was cut off.
func (x *exporter) run(start string) error {
	for failed := 0; ; {
		before := x.done.Keys
		cut, err := x.stream(start)
		if cut == nil || err != nil {
			return err
		}
		code, _ := describe(cut)
		if code == codes.Unimplemented {
			return x.pages(start)
		}
		if x.done.Keys > before {
			failed = 0
		}
		if failed++; code != codes.Unavailable || failed > exportRetries {
			return explain(cut, x.timeout, false)
		}
		if x.last != nil {
			start = string(x.last) + "\x00"
		}
	}
}

// stream returns why it was cut off, or the failure of something else.
func (x *exporter) stream(start string) (cut, err error) {
	ctx, cancel := context.WithCancel(x.ctx)
	defer cancel()
	parts, err := x.GetStream(ctx, start, x.options()...)
	if err != nil {
		return err, nil
	}
	for part := range parts {
		if cut := part.Err(); cut != nil {
			return cut, nil
		}
		if err := x.write(part.Kvs); err != nil {
			cancel()
			for range parts { // its sender waits
			}
			return nil, err
		}
	}
	return x.ctx.Err(), nil
}

// exportPage is how many keys are asked for at once where there are no streams.
const exportPage = 1000

// pages is for an etcd before 3.7.
func (x *exporter) pages(start string) error {
	for {
		resp, err := read(x.session, func(ctx context.Context) (*clientv3.GetResponse, error) {
			return x.Get(ctx, start, x.options(clientv3.WithLimit(exportPage))...)
		})
		if err != nil {
			return err
		}
		if err := x.write(resp.Kvs); err != nil || !resp.More {
			return err
		}
		start = string(x.last) + "\x00"
	}
}

func (x *exporter) write(kvs []*mvccpb.KeyValue) error {
	for _, kv := range kvs {
		line := newPairLine(kv)
		if kv.Lease != 0 {
			ttl, err := x.ttl(kv.Lease)
			if err != nil {
				return err
			}
			line.TTL = ttl
		}
		if err := x.json.Encode(line); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		x.last = kv.Key
		x.done.Keys++
		x.left--
	}
	x.progress.show(stage{state: "reading keys", left: x.left})
	return nil
}

// ttl is what the lease was granted for; 0: it has ended, which can be where the revision is an older one.
func (x *exporter) ttl(id int64) (int64, error) {
	if ttl, seen := x.ttls[id]; seen {
		return ttl, nil
	}
	resp, err := read(x.session, func(ctx context.Context) (*clientv3.LeaseTimeToLiveResponse, error) {
		return x.TimeToLive(ctx, clientv3.LeaseID(id))
	})
	if err != nil {
		return 0, fmt.Errorf("ask for lease %s: %w", leaseName(id), err)
	}
	x.ttls[id] = 0
	if resp.TTL >= 0 {
		x.ttls[id] = resp.GrantedTTL
	}
	return x.ttls[id], nil
}
