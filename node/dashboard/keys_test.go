package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
)

// shelf is a store that keys are read from: changes by key, in their order.
type shelf struct {
	changes   map[string][]*mvccpb.Event
	compacted int64
	latest    int64
	taken     int           // keys that streams were asked for
	reading   chan struct{} // told of each Range, which then waits for hold
	hold      chan struct{}
}

func (s *shelf) put(key, value string, at int64, lease int64) {
	kv := &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), CreateRevision: at, ModRevision: at, Version: 1, Lease: lease}
	if old := s.changes[key]; len(old) > 0 && old[len(old)-1].Type == mvccpb.PUT {
		last := old[len(old)-1].Kv
		kv.CreateRevision, kv.Version = last.CreateRevision, last.Version+1
	}
	s.changes[key], s.latest = append(s.changes[key], &mvccpb.Event{Kv: kv}), at
}

func (s *shelf) del(key string, at int64) {
	s.changes[key] = append(s.changes[key], &mvccpb.Event{Type: mvccpb.DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: at}})
	s.latest = at
}

func (s *shelf) Range(_ context.Context, req *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	if s.hold != nil {
		select {
		case s.reading <- struct{}{}:
		default:
		}
		<-s.hold
	}
	switch at := req.Revision; {
	case at > s.latest:
		return nil, rpctypes.ErrGRPCFutureRev
	case at > 0 && at < s.compacted:
		return nil, rpctypes.ErrGRPCCompacted
	}
	resp := &pb.RangeResponse{}
	for _, key := range slices.Sorted(func(yield func(string) bool) {
		for key := range s.changes {
			if shard.RequestSpan(req.Key, req.RangeEnd).Contains([]byte(key)) && !yield(key) {
				return
			}
		}
	}) {
		var now *mvccpb.KeyValue
		for _, e := range s.changes[key] {
			if req.Revision > 0 && e.Kv.ModRevision > req.Revision {
				break
			}
			if now = e.Kv; e.Type == mvccpb.DELETE {
				now = nil
			}
		}
		if now != nil {
			resp.Kvs = append(resp.Kvs, now)
		}
	}
	return resp, nil
}

// streamed is a stream that tells one key at a time.
type streamed struct {
	grpc.ClientStream
	shelf *shelf
	rest  []*mvccpb.KeyValue
}

func (s *shelf) RangeStream(ctx context.Context, req *pb.RangeRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.RangeStreamResponse], error) {
	if !req.KeysOnly {
		return nil, errors.New("values are read")
	}
	resp, err := s.Range(ctx, req)
	return &streamed{shelf: s, rest: resp.GetKvs()}, err
}

func (s *streamed) Recv() (*pb.RangeStreamResponse, error) {
	if len(s.rest) == 0 {
		return nil, io.EOF
	}
	one := s.rest[:1]
	s.rest, s.shelf.taken = s.rest[1:], s.shelf.taken+1
	return &pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{Kvs: one}}, nil
}

// watched is a watch's stream; what it answers is known when it is asked.
type watched struct {
	grpc.ClientStream
	shelf   *shelf
	answers []*pb.WatchResponse
}

func (s *shelf) Watch(context.Context, ...grpc.CallOption) (pb.Watch_WatchClient, error) {
	return &watched{shelf: s}, nil
}

func (w *watched) Send(req *pb.WatchRequest) error {
	create := req.GetCreateRequest()
	if create == nil {
		w.answers = append(w.answers, &pb.WatchResponse{})
		return nil
	}
	w.answers = append(w.answers, &pb.WatchResponse{Created: true})
	if create.StartRevision < w.shelf.compacted {
		w.answers = append(w.answers, &pb.WatchResponse{Canceled: true, CompactRevision: w.shelf.compacted})
		return nil
	}
	for _, e := range w.shelf.changes[string(create.Key)] {
		if e.Type == mvccpb.DELETE && e.Kv.ModRevision >= create.StartRevision {
			w.answers = append(w.answers, &pb.WatchResponse{Events: []*mvccpb.Event{e}})
		}
	}
	return nil
}

func (w *watched) Recv() (*pb.WatchResponse, error) {
	next := w.answers[0]
	w.answers = w.answers[1:]
	return next, nil
}

func (s *shelf) LeaseTimeToLive(_ context.Context, req *pb.LeaseTimeToLiveRequest, _ ...grpc.CallOption) (*pb.LeaseTimeToLiveResponse, error) {
	return &pb.LeaseTimeToLiveResponse{ID: req.ID, TTL: 42, GrantedTTL: 60}, nil
}

// browser is a dashboard of keys in shards that are cut at some.
func browser(t *testing.T, cuts ...string) (*Dashboard, *shelf) {
	t.Helper()
	s, view := &shelf{changes: make(map[string][]*mvccpb.Event)}, founded(t, cuts...)
	d := newDashboard(&world{view: view})
	d.cfg.Keys = &Keys{
		KV: s, Watch: s, Lease: s, Map: func() *placement.Map { return view.Map },
		As:        func(r *http.Request) (context.Context, error) { return r.Context(), nil },
		KnownHost: func(host string) bool { return host == "flotilla.example" },
	}
	return d, s
}

func read[T any](t *testing.T, d http.Handler, path string, query ...string) *T {
	t.Helper()
	values := url.Values{}
	for i := 0; i < len(query); i += 2 {
		values.Set(query[i], query[i+1])
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path+"?"+values.Encode(), nil)
	r.Host = "127.0.0.1:2379"
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.NotContains(t, w.Body.String(), "<", "encoding/json escapes it")
	out := new(T)
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), out))
	return out
}

// B5: nobody is shown keys who is not meant to be: not without the flag, not by a name that anybody can have point here,
// not another site's page, and not who may not.
func TestKeysAreForWhoMaySeeThem(t *testing.T) {
	ask := func(d *Dashboard, host, site string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/dashboard/key?key=k", nil)
		r.Host = host
		r.Header.Set("Sec-Fetch-Site", site)
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		require.Equal(t, w.Code == http.StatusOK, strings.Contains(w.Body.String(), "secret"), w.Body)
		return w
	}
	d, s := browser(t)
	s.put("k", "secret", 5, 0)
	for _, host := range []string{"127.0.0.1:2379", "[::1]:2379", "[::1]", "localhost:1", "flotilla.example:2379", "flotilla.example"} {
		require.Equal(t, http.StatusOK, ask(d, host, "same-origin").Code, host)
	}
	for _, host := range []string{"rebound.example:2379", "rebound.example", ""} {
		require.Equal(t, http.StatusForbidden, ask(d, host, "same-origin").Code, host)
	}
	for _, site := range []string{"cross-site", "same-site"} {
		require.Equal(t, http.StatusForbidden, ask(d, "localhost", site).Code)
	}
	d.cfg.Keys.As = func(*http.Request) (context.Context, error) { return nil, errors.New("who asks?") }
	require.Contains(t, ask(d, "localhost", "").Body.String(), "who asks?")
	off := newDashboard(&world{view: founded(t)})
	require.Contains(t, ask(off, "localhost", "").Body.String(), "--dashboard-keys")
	require.False(t, stateOf(t, off).Keys)
}

// B5: pages are short, each shard is read for itself and no further than it is shown.
func TestKeysByPages(t *testing.T) {
	d, s := browser(t, "k1", "k2", "z")
	for i := range 250 {
		s.put(fmt.Sprintf("k%03d", i), "v", int64(i+2), 0)
	}
	s.put("other", "v", 300, 0)
	var all []string
	from, pages := "", 0
	for {
		page := read[KeyPage](t, d, "/dashboard/keys", "prefix", "k", "from", from)
		for _, k := range page.Keys {
			all = append(all, k.Key)
			require.Equal(t, map[string]uint64{`"k0`: 2, `"k1`: 3, `"k2`: 4}[k.Key[:3]], k.Shard)
		}
		pages++
		require.LessOrEqual(t, len(page.Keys), keysAtOnce)
		if from = page.Next; from == "" {
			break
		}
	}
	require.Equal(t, 3, pages)
	require.Len(t, all, 250)
	require.True(t, slices.IsSorted(all))
	require.LessOrEqual(t, s.taken, 250+pages)

	// All keys, the last of which is in the last shard; and those of a revision.
	page := read[KeyPage](t, d, "/dashboard/keys", "prefix", `"o"`)
	require.Equal(t, []int{1, 1}, []int{len(page.Keys), page.Shards})
	page = read[KeyPage](t, d, "/dashboard/keys", "at", "3")
	require.Equal(t, []int{2, 4}, []int{len(page.Keys), page.Shards})
	require.EqualValues(t, 3, page.Revision)
	// Nothing is as young as the time that is asked for: it is the present.
	page = read[KeyPage](t, d, "/dashboard/keys", "prefix", "other", "at", "10m")
	require.Len(t, page.Keys, 1)
	require.Zero(t, page.Revision)
}

func TestKeysThatCannotBeAskedFor(t *testing.T) {
	d, s := browser(t)
	s.put("a", "v", 10, 0)
	s.put(strings.Repeat("long", keyAskedMax), "v", 11, 0)
	s.compacted = 8
	page := read[KeyPage](t, d, "/dashboard/keys")
	require.NotEmpty(t, page.Keys[0].ID)
	require.Empty(t, page.Keys[1].ID)
	for query, want := range map[string]string{
		"/dashboard/keys?prefix=%22a": "must end with one", "/dashboard/keys?from=%25": "key ID",
		"/dashboard/keys?at=yesterday": "want a revision", "/dashboard/keys?at=7": "compacted", "/dashboard/keys?at=99": "future revision",
		"/dashboard/key": "say which key", "/dashboard/key?key=a&at=7": "compacted",
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, query, nil)
		r.Host = "localhost"
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		require.Equal(t, http.StatusBadRequest, w.Code, query)
		require.Contains(t, w.Body.String(), want, query)
		require.NotContains(t, w.Body.String(), "rpc error", query)
	}
}

func TestHistoryOfAKey(t *testing.T) {
	d, s := browser(t, "a")
	s.put("b", "before", 5, 0)
	s.del("b", 6)
	s.put("b", "1", 7, 0)
	s.del("b", 8)
	for i := range int64(12) {
		s.put("b", fmt.Sprint(i), 20+i, 0x7f)
	}
	h := read[KeyHistory](t, d, "/dashboard/key", "key", "b")
	require.Equal(t, &Lease{"7f", 42, 60}, h.Lease)
	require.EqualValues(t, 3, h.Shard)
	require.Len(t, h.Versions, versionsAtOnce)
	require.Equal(t, Version{Revision: 31, At: timeOf(31), Created: 20, Version: 12, Lease: "7f", Value: &Value{Bytes: 2, Kind: "text", Text: "11"}}, h.Versions[0])
	require.EqualValues(t, 21, h.Older)

	revisions := func(h *KeyHistory) (out []int64) {
		for _, v := range h.Versions {
			if v.Deleted {
				out = append(out, -v.Revision)
			} else {
				out = append(out, v.Revision)
			}
		}
		return out
	}
	h = read[KeyHistory](t, d, "/dashboard/key", "id", h.ID, "at", "21")
	require.Equal(t, []int64{21, 20, -8, 7, -6, 5}, revisions(h))
	require.Equal(t, "The key did not exist before.", h.Ends)
	require.Zero(t, h.Older)
	// As of a revision at which it did not exist: what was before.
	h = read[KeyHistory](t, d, "/dashboard/key", "key", "b", "at", "10")
	require.Equal(t, []int64{-8, 7, -6, 5}, revisions(h))

	s.compacted = 7
	h = read[KeyHistory](t, d, "/dashboard/key", "key", "b", "at", "20")
	require.Equal(t, []int64{20, -8, 7}, revisions(h))
	require.Equal(t, "What was before has been compacted.", h.Ends)
	require.Empty(t, read[KeyHistory](t, d, "/dashboard/key", "key", "never").Versions)
}

// B5
func TestFewBrowseAtATime(t *testing.T) {
	d, s := browser(t)
	s.put("k", "v", 5, 0)
	s.reading, s.hold = make(chan struct{}, browsesMax), make(chan struct{})
	answers := make(chan int)
	for range browsesMax {
		go func() {
			r := httptest.NewRequest(http.MethodGet, "/dashboard/key?key=k", nil)
			r.Host = "localhost"
			w := httptest.NewRecorder()
			d.ServeHTTP(w, r)
			answers <- w.Code
		}()
	}
	for range browsesMax {
		<-s.reading // and goes on reading
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/dashboard/key?key=k", nil)
	r.Host = "localhost"
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	close(s.hold)
	for range browsesMax {
		require.Equal(t, http.StatusOK, <-answers)
	}
}

// B2: whatever a value is, what is shown of it is short and printable.
func TestValuesAreText(t *testing.T) {
	long := strings.Repeat("é", textBytesMax)
	for _, c := range []struct {
		value string
		want  Value
	}{
		{"", Value{Kind: "text"}},
		{"a\tb\n\u202e\x1b[2J\u00a0", Value{Bytes: 13, Kind: "text", Text: "a\tb\n" + `\u202e\x1b[2J\u00a0`}},
		{"x" + long, Value{Bytes: 1 + len(long), Kind: "text", Text: "x" + long[:textBytesMax-2], Cut: true}},
		{`{"a":[1e400,"\u202e<b>"]}`, Value{Bytes: 25, Kind: "json", Text: "{\n  \"a\": [\n    1e400,\n    \"\\u202e<b>\"\n  ]\n}", Indented: true}},
		{"[]", Value{Bytes: 2, Kind: "json", Text: "[]"}},
		{"17", Value{Bytes: 2, Kind: "text", Text: "17"}},
		{"{no", Value{Bytes: 3, Kind: "text", Text: "{no"}},
		{"k8s\x00", Value{Bytes: 4, Kind: "hex", Text: "00000000  6b 38 73 00                                       |k8s.|\n"}},
		{"\xff", Value{Bytes: 1, Kind: "hex", Text: "00000000  ff                                                |.|\n"}},
	} {
		require.Equal(t, c.want, *legible([]byte(c.value)), "%.40q", c.value)
	}
	deep := strings.Repeat(`["]",`, 1000) + "1" + strings.Repeat("]", 1000)
	require.Equal(t, Value{Bytes: len(deep), Kind: "json", Text: deep}, *legible([]byte(deep)))
	require.True(t, legible([]byte("["+strings.Repeat("1,", textBytesMax)+"1]")).Cut)
	binary := legible(bytes.Repeat([]byte{0xfe}, 1<<20))
	require.True(t, binary.Cut)
	require.Less(t, len(binary.Text), 8*hexBytesMax)
}

func TestRevisionsAreAskedFor(t *testing.T) {
	now := time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC)
	tenAgo, err := revisionAsked(" 10m ", now)
	require.NoError(t, err)
	require.True(t, tenAgo.isTime)
	require.Equal(t, now.Add(-10*time.Minute).UnixMilli(), timeOf(tenAgo.revision))
	require.Equal(t, shard.Slot(255), shard.Revision(tenAgo.revision).Slot())
	seven, err := revisionAsked("7", now)
	require.NoError(t, err)
	require.Equal(t, revision{revision: 7}, seven)
	for _, wrong := range []string{"-1", "-10m", "x", "10m ago"} {
		_, err := revisionAsked(wrong, now)
		require.Error(t, err, wrong)
	}
}
