package dashboard

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// keysAtOnce and versionsAtOnce are the lengths of a page. A page of versions is that many reads, one after the other.
	keysAtOnce, versionsAtOnce = 100, 10
	// pageTime is after how long a page of keys ends, even if it is not full: a thousand empty shards take a while.
	pageTime = 2 * time.Second
	// browsesMax is how many requests read at a time, of all browsers together. Others are refused at once: a dashboard
	// must not take what clients need.
	browsesMax = 2
	// browsePatience bounds a request.
	browsePatience = 8 * time.Second
	// keyAskedMax is the longest key that can be asked for: URLs are short.
	keyAskedMax = 4096
)

// Keys is where the page reads keys: the API that the node's clients use, as far as it reads (B5).
type Keys struct {
	KV interface {
		Range(context.Context, *pb.RangeRequest, ...grpc.CallOption) (*pb.RangeResponse, error)
		RangeStream(context.Context, *pb.RangeRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[pb.RangeStreamResponse], error)
	}
	Watch pb.WatchClient
	Lease interface {
		LeaseTimeToLive(context.Context, *pb.LeaseTimeToLiveRequest, ...grpc.CallOption) (*pb.LeaseTimeToLiveResponse, error)
	}
	// As is asked for every request. It returns the context for what is read on its behalf, with what says who asks; or
	// why that person is shown no keys.
	As func(*http.Request) (context.Context, error)
	// KnownHost reports whether a host name is one of the node's own. A page elsewhere can have its own name point to this
	// node, and then is of the same origin. Addresses and localhost cannot be pointed elsewhere.
	KnownHost func(host string) bool
	// Map says which shard owns a key.
	Map func() *placement.Map
}

// KeyPage is some keys, ascending.
type KeyPage struct {
	Keys []Key `json:"keys"`
	// Revision is the one as of which they were read, and which the next page has to be asked for; 0: the latest.
	Revision int64 `json:"revision"`
	// Next is the ID at which the next page begins; empty: there is none.
	Next string `json:"next"`
	// Shards is how many shards were read.
	Shards int `json:"shards"`
}

// Key is a key without its value. Times are derived from revisions, in milliseconds of Unix time.
type Key struct {
	Key      string `json:"key"`
	ID       string `json:"id"` // empty: it is too long to be asked for
	Version  int64  `json:"version"`
	Created  int64  `json:"created"`
	Modified int64  `json:"modified"`
	Revision int64  `json:"revision"` // of the last change
	Shard    uint64 `json:"shard"`    // that owns the key now
}

// KeyHistory is what is left of a key's past, the newest first.
type KeyHistory struct {
	Key      string    `json:"key"`
	ID       string    `json:"id"`
	Shard    uint64    `json:"shard"`
	Lease    *Lease    `json:"lease"` // of the newest version shown; nil: it has none
	Versions []Version `json:"versions"`
	// Older is the revision at which the next page begins; 0: there is none, and Ends says why.
	Older int64  `json:"older"`
	Ends  string `json:"ends"`
}

// Lease is a lease as of now, in seconds.
type Lease struct {
	ID      string `json:"id"`
	Left    int64  `json:"left"` // -1: it has ended; -2: unknown
	Granted int64  `json:"granted"`
}

// Version is a value that the key had, or its deletion.
type Version struct {
	Revision int64  `json:"revision"`
	At       int64  `json:"at"`
	Deleted  bool   `json:"deleted,omitempty"`
	Created  int64  `json:"created,omitempty"` // revision
	Version  int64  `json:"version,omitempty"`
	Lease    string `json:"lease,omitempty"`
	Value    *Value `json:"value,omitempty"`
}

// browse checks that a request may read keys, and answers it with what read finds.
func (d *Dashboard) browse(read func(context.Context, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, err := d.mayBrowse(r)
		if err != nil {
			d.refuse(w, http.StatusForbidden, err)
			return
		}
		select {
		case d.browses <- struct{}{}:
			defer func() { <-d.browses }()
		default:
			d.refuse(w, http.StatusTooManyRequests, errors.New("others are browsing keys; try again"))
			return
		}
		ctx, cancel := context.WithTimeout(ctx, browsePatience)
		defer cancel()
		found, err := read(ctx, r)
		if err != nil {
			d.refuse(w, httpCode(err), err)
			return
		}
		body, err := json.Marshal(found)
		if err != nil {
			d.refuse(w, http.StatusInternalServerError, fmt.Errorf("encode keys: %w", err))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}
}

func (d *Dashboard) mayBrowse(r *http.Request) (context.Context, error) {
	if d.cfg.Keys == nil {
		return nil, errors.New("this node shows no keys: it was started without --dashboard-keys")
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none": // no browser, this page, or somebody who typed it
	default:
		return nil, errors.New("keys are not shown to other sites")
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host != "localhost" && net.ParseIP(strings.Trim(host, "[]")) == nil && !d.cfg.Keys.KnownHost(host) {
		return nil, fmt.Errorf("keys are shown only by names that the node knows, and %q is none of them: name it in --host-whitelist or --advertise-client-urls, or use an address", host)
	}
	return d.cfg.Keys.As(r)
}

// errAsked is a request that cannot be answered, whoever asks.
type errAsked struct{ error }

// errTold is an error of the API, without gRPC's words around it.
type errTold struct{ *status.Status }

func told(err error) error { return errTold{status.Convert(err)} }

func (e errTold) Error() string { return e.Message() }

// GRPCStatus is what status.Code looks for.
func (e errTold) GRPCStatus() *status.Status { return e.Status }

func is(err, known error) bool {
	var e errTold
	return errors.As(err, &e) && e.Message() == status.Convert(known).Message()
}

func httpCode(err error) int {
	var asked errAsked
	switch code := status.Code(err); {
	case errors.As(err, &asked), code == codes.InvalidArgument, code == codes.OutOfRange:
		return http.StatusBadRequest
	case code == codes.PermissionDenied, code == codes.Unauthenticated:
		return http.StatusForbidden
	case code == codes.ResourceExhausted:
		return http.StatusTooManyRequests
	default:
		return http.StatusServiceUnavailable
	}
}

// keyPage reads the keys with a prefix, from one on. It reads shard after shard, each for itself: a read of several
// shards would be one cut, and would write to the log of each that is behind.
func (d *Dashboard) keyPage(ctx context.Context, r *http.Request) (any, error) {
	prefix, err := asked(r.FormValue("prefix"))
	if err != nil {
		return nil, err
	}
	span := shard.RequestSpan(prefix, prefixEnd(prefix))
	if len(prefix) == 0 {
		span = shard.Everything()
	}
	if id := r.FormValue("from"); id != "" {
		from, err := keyOf(id)
		if err != nil {
			return nil, err
		}
		if bytes.Compare(from, span.Start) > 0 {
			span.Start = from
		}
	}
	at, err := revisionAsked(r.FormValue("at"), time.Now())
	if err != nil {
		return nil, err
	}
	page := &KeyPage{Keys: []Key{}, Revision: at.revision}
	late := time.Now().Add(pageTime)
	for ; !span.Empty(); page.Shards++ {
		if len(page.Keys) == keysAtOnce || page.Shards > 0 && time.Now().After(late) {
			page.Next = base64.RawURLEncoding.EncodeToString(span.Start)
			break
		}
		owner := d.cfg.Keys.Map().Lookup(span.Start)
		if owner == nil {
			return nil, errors.New("list keys: the placement table is not known yet")
		}
		found, err := d.keysOf(ctx, span.Intersect(owner.Span), keysAtOnce-len(page.Keys)+1, page.Revision)
		if page.Revision > 0 && at.isTime && is(err, rpctypes.ErrGRPCFutureRev) {
			page.Revision = 0 // nothing was written since that time: what was then is what is now
			page.Shards--
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list keys of shard %d: %w", owner.ID, err)
		}
		for _, kv := range found {
			if len(page.Keys) == keysAtOnce {
				page.Next = base64.RawURLEncoding.EncodeToString(kv.Key)
				page.Shards++
				return page, nil
			}
			page.Keys = append(page.Keys, Key{
				Key: printable(kv.Key), ID: idOf(kv.Key), Version: kv.Version, Created: timeOf(kv.CreateRevision),
				Modified: timeOf(kv.ModRevision), Revision: kv.ModRevision, Shard: uint64(owner.ID),
			})
		}
		if len(owner.Span.End) == 0 {
			page.Shards++
			break
		}
		span.Start = owner.Span.End
	}
	return page, nil
}

// keysOf reads keys of one shard, without their values. A Range would count all keys of the span; a stream reads what is
// taken from it.
func (d *Dashboard) keysOf(ctx context.Context, span shard.Span, limit int, at int64) ([]*mvccpb.KeyValue, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	req := &pb.RangeRequest{Key: span.Start, RangeEnd: span.End, KeysOnly: true, Revision: at}
	if len(req.Key) == 0 {
		req.Key = []byte{0}
	}
	if len(req.RangeEnd) == 0 {
		req.RangeEnd = []byte{0} // all that follow
	}
	stream, err := d.cfg.Keys.KV.RangeStream(ctx, req)
	if err != nil {
		return nil, told(err)
	}
	var found []*mvccpb.KeyValue
	for len(found) < limit {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, told(err)
		}
		found = append(found, part.RangeResponse.GetKvs()...)
	}
	return found[:min(len(found), limit)], nil
}

// revision is what somebody asks for.
type revision struct {
	revision int64 // 0: the latest
	isTime   bool  // it was asked for by a time
}

// revisionAsked reads a revision, or how long ago it was.
func revisionAsked(text string, now time.Time) (revision, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return revision{}, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
		return revision{revision: n}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		// Before the next tick, so that all of this one's revisions are seen.
		return revision{int64((shard.TickAt(now.Add(-ago)) + 1).Revision() - 1), true}, nil
	}
	return revision{}, errAsked{fmt.Errorf("%q: want a revision, or how long ago: 10m or 1h30m", text)}
}

// asked is the key that somebody typed: as it is, or as this page shows it, between quotes and with escapes.
func asked(text string) ([]byte, error) {
	if !strings.HasPrefix(text, `"`) {
		return []byte(text), nil
	}
	key, err := strconv.Unquote(text)
	if err != nil {
		return nil, errAsked{fmt.Errorf(`%s: a key that begins with a quote must end with one, with escapes between them: "a\xff"`, text)}
	}
	return []byte(key), nil
}

func idOf(key []byte) string {
	if len(key) > keyAskedMax {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(key)
}

func keyOf(id string) ([]byte, error) {
	key, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil {
		return nil, errAsked{fmt.Errorf("key ID: %w", err)}
	}
	return key, nil
}

// prefixEnd is the first key after those with the prefix, in etcd's way.
func prefixEnd(prefix []byte) []byte {
	end := slices.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte{0}
}

func timeOf(revision int64) int64 { return shard.Revision(revision).Tick().Time().UnixMilli() }
