package etcdapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/txn"
)

func TestVersion(t *testing.T) {
	f := newFace(t)
	code, body := f.get(t, "/version")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, `{"etcdserver":"3.7.3","etcdcluster":"3.7.0","storage":"3.7.0"}`, body)
	code, _ = f.do(t, http.MethodPost, "/version", "")
	require.Equal(t, http.StatusMethodNotAllowed, code)
}

func TestHealth(t *testing.T) {
	f := newFace(t)
	for _, tc := range []struct {
		name    string
		path    string
		prepare func()
		code    int
		body    string
	}{
		{"healthy", "/health", func() {}, 200, `{"health":"true","reason":""}`},
		{"read fails", "/health", func() { f.kv.failNext(fmt.Errorf("shard 2: %w", shard.ErrUnavailable)) }, 503, `{"health":"false","reason":"RANGE ERROR:etcdserver: no leader"}` + "\n"},
		{"no leader", "/health", func() { f.cluster.setLeaderless(true) }, 503, `{"health":"false","reason":"RAFT NO LEADER"}` + "\n"},
		{"no leader, asked locally", "/health?serializable=true", func() {}, 200, `{"health":"true","reason":""}`},
		{"alarm first", "/health", func() {
			require.NoError(t, f.cluster.RaiseAlarm(t.Context(), &pb.AlarmMember{Alarm: pb.AlarmType_NOSPACE}))
		}, 503, `{"health":"false","reason":"ALARM NOSPACE"}` + "\n"},
		{"alarm excluded", "/health?exclude=NOSPACE&serializable=true", func() {}, 200, `{"health":"true","reason":""}`},
		{"another alarm", "/health?exclude=NOSPACE", func() {
			require.NoError(t, f.cluster.RaiseAlarm(t.Context(), &pb.AlarmMember{Alarm: pb.AlarmType_CORRUPT}))
		}, 503, `{"health":"false","reason":"ALARM CORRUPT"}` + "\n"},
	} {
		tc.prepare()
		code, body := f.get(t, tc.path)
		require.Equal(t, tc.code, code, tc.name)
		require.Equal(t, tc.body, body, tc.name)
	}
	code, body := f.do(t, http.MethodPost, "/health", "")
	require.Equal(t, http.StatusMethodNotAllowed, code)
	require.Equal(t, "Method Not Allowed\n", body)
}

func TestProbes(t *testing.T) {
	f := newFace(t)
	const allReady = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\n"
	for _, tc := range []struct {
		path    string
		prepare func()
		code    int
		body    string
	}{
		{"/livez", nil, 200, "ok\n"},
		{"/livez?verbose", nil, 200, "[+]serializable_read ok\nok\n"},
		{"/livez/serializable_read", nil, 200, "ok\n"},
		{"/livez/linearizable_read", nil, 404, "404 page not found\n"},
		{"/livez", func() { f.kv.failNext(errors.New("disk is gone")) }, 503, "[-]serializable_read failed: disk is gone\n\n"},
		{"/readyz", nil, 200, "ok\n"},
		{"/readyz?verbose", nil, 200, allReady + "ok\n"},
		{"/readyz?verbose&exclude=linearizable_read&exclude=non_learner&exclude=nothing", nil, 200, "[+]data_corruption ok\n[+]serializable_read ok\nok\n"},
		{"/readyz/linearizable_read?verbose", nil, 200, "[+]linearizable_read ok\nok\n"},
		{"/readyz/non_learner", nil, 200, "ok\n"},
		{"/readyz", func() {
			require.NoError(t, f.cluster.RaiseAlarm(t.Context(), &pb.AlarmMember{Alarm: pb.AlarmType_CORRUPT}))
		}, 503, "[-]data_corruption failed: alarm activated: CORRUPT\n" + strings.SplitN(allReady, "\n", 2)[1] + "\n"},
		{"/readyz/serializable_read", nil, 200, "ok\n"},
	} {
		if tc.prepare != nil {
			tc.prepare()
		}
		code, body := f.get(t, tc.path)
		require.Equal(t, tc.code, code, tc.path)
		require.Equal(t, tc.body, body, tc.path)
	}
	_, metrics := f.get(t, "/metrics")
	require.Contains(t, metrics, `etcd_server_healthcheck{name="data_corruption",type="readyz"} 0`)
	require.Contains(t, metrics, `etcd_server_healthchecks_total{name="serializable_read",status="error",type="livez"} 1`)
	code, _ := f.get(t, "/debug/vars")
	require.Equal(t, http.StatusNotFound, code)
}

// Damage is a matter of the node that has it: the others stay in service.
func TestDamageElsewhere(t *testing.T) {
	f := newFace(t)
	require.NoError(t, f.cluster.RaiseAlarm(t.Context(), &pb.AlarmMember{MemberID: 0xB2, Alarm: pb.AlarmType_CORRUPT}))
	code, _ := f.get(t, "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	f.cluster.setSound()
	for _, path := range []string{"/readyz", "/health"} {
		code, body := f.get(t, path)
		require.Equal(t, http.StatusOK, code, body)
	}
}

func TestGateway(t *testing.T) {
	f := newFace(t)
	post := func(path, body string) (int, map[string]any) {
		code, text := f.do(t, http.MethodPost, path, body)
		var parsed map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &parsed), text)
		return code, parsed
	}
	code, put := post("/v3/kv/put", `{"key":"Zm9v","value":"YmFy","unknown_field":1}`)
	require.Equal(t, http.StatusOK, code)
	// 64-bit integers are strings.
	require.Equal(t, map[string]any{"header": map[string]any{
		"cluster_id": "193", "member_id": "161", "revision": "2", "raft_term": "7",
	}}, put)

	for _, path := range []string{"/v3/kv/range", "/v3beta/kv/range"} {
		code, got := post(path, `{"key":"Zm9v"}`)
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, "1", got["count"])
		require.Equal(t, "YmFy", got["kvs"].([]any)[0].(map[string]any)["value"])
		require.NotContains(t, got, "more", "zero values are left out")
	}
	code, got := post("/v3/kv/txn", `{"success":[{"request_put":{"key":"Zm9v","value":"YmFy"}}]}`)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, true, got["succeeded"])
	code, got = post("/v3/maintenance/status", `{}`)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "3.7.3", got["version"])
	code, got = post("/v3/cluster/member/list", `{}`)
	require.Equal(t, http.StatusOK, code)
	require.NotContains(t, got["header"], "revision")

	for _, tc := range []struct {
		path, body string
		code       int
		grpcCode   float64
		message    string
	}{
		{"/v3/kv/put", `{}`, 400, 3, "etcdserver: key is not provided"},
		{"/v3/kv/put", `{"key":`, 400, 3, "unexpected EOF"},
		{"/v3/auth/user/add", `{}`, 501, 12, "flotilla: Auth.UserAdd is not implemented"},
		{"/v3/auth/authenticate", `{}`, 400, 9, "etcdserver: authentication is not enabled"},
		{"/v3/nothing", `{}`, 404, 5, "Not Found"},
	} {
		code, got := post(tc.path, tc.body)
		require.Equal(t, tc.code, code, tc.path)
		require.InDelta(t, tc.grpcCode, got["code"], 0, tc.path)
		require.Equal(t, tc.message, got["message"], tc.path)
	}

	code, got = post("/v3/kv/put", fmt.Sprintf(`{"key":"Zm9v","value":%q}`, base64.StdEncoding.EncodeToString(make([]byte, txn.DefaultMaxRequestBytes))))
	require.Equal(t, http.StatusBadRequest, code)
	require.Equal(t, "etcdserver: request is too large", got["message"])
	code, got = post("/v3/kv/put", `{"key":"`+strings.Repeat("A", 2*txn.DefaultMaxRequestBytes)+`"}`)
	require.Equal(t, http.StatusTooManyRequests, code, "gRPC refuses what is inside")
	require.InDelta(t, 8, got["code"], 0)
	code, got = post("/v3/lock/lock", `{"name":"`+strings.Repeat("A", 3*txn.DefaultMaxRequestBytes)+`"}`)
	require.Equal(t, http.StatusTooManyRequests, code, "a body without end is not read to the end")
	require.InDelta(t, 8, got["code"], 0)
	require.Equal(t, "flotilla: the body of a request is larger than 4194304 bytes", got["message"])
}

// An error of a stream has the shape that etcd's gateway gives it.
func TestGatewayStreams(t *testing.T) {
	f := newFace(t)
	f.leases.fail(shard.ErrUnavailable)
	code, body := f.do(t, http.MethodPost, "/v3/lease/keepalive", `{"ID":"1"}`)
	require.Equal(t, http.StatusServiceUnavailable, code)
	var answer struct {
		Error struct {
			GRPCCode int `json:"code"`
			Message  string
		}
	}
	require.NoError(t, json.Unmarshal([]byte(body), &answer), body)
	require.Equal(t, 14, answer.Error.GRPCCode, body)
	require.Equal(t, "etcdserver: no leader", answer.Error.Message)
}

// As with curl: the request ends at once, the answers go on until the client leaves.
func TestGatewayWatch(t *testing.T) {
	f := newFace(t)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+f.addr+"/v3/watch", strings.NewReader(`{"create_request":{"key":"Zm9v","prev_kv":true}}`))
	require.NoError(t, err)
	resp, err := f.http.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	lines := bufio.NewScanner(resp.Body)
	next := func() string {
		require.True(t, lines.Scan(), lines.Err())
		return strings.ReplaceAll(lines.Text(), " ", "")
	}
	const header = `"header":{"cluster_id":"193","member_id":"161","revision":"%d","raft_term":"7"}`
	require.Equal(t, fmt.Sprintf(`{"result":{`+header+`,"created":true}}`, 42), next())
	f.watches.put("bar", "foo")
	require.Equal(t, fmt.Sprintf(`{"result":{`+header+`,"events":[{"kv":{"key":"Zm9v","mod_revision":"43","value":"YmFy"},"prev_kv":{"key":"Zm9v"}}]}}`, 43), next())
	leave()
	require.Eventually(t, func() bool { return f.watches.opened() == 0 }, 10*time.Second, time.Millisecond)
}

// twoEvents is a Watch service that answers everybody with two events.
type twoEvents struct{ pb.UnimplementedWatchServer }

func (twoEvents) Watch(stream pb.Watch_WatchServer) error {
	for id := range int64(2) {
		if err := stream.Send(&pb.WatchResponse{WatchId: id + 1}); err != nil {
			return err
		}
	}
	return nil
}

func TestGatewayStreamsAreLines(t *testing.T) {
	loopback, err := StartLoopback(nil, func(g grpc.ServiceRegistrar) { pb.RegisterWatchServer(g, twoEvents{}) })
	require.NoError(t, err)
	defer func() { require.NoError(t, loopback.Close()) }()
	gateway, err := new(Server).NewGateway(loopback.Conn())
	require.NoError(t, err)
	w := httptest.NewRecorder()
	gateway.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v3/watch", strings.NewReader(`{}`)))
	require.Equal(t, "{\"result\":{\"watch_id\":\"1\"}}\n{\"result\":{\"watch_id\":\"2\"}}\n", strings.ReplaceAll(w.Body.String(), " ", ""))
}

func TestLoopbackClosesAtOnce(t *testing.T) {
	loopback, err := StartLoopback(nil, func(grpc.ServiceRegistrar) {})
	require.NoError(t, err)
	require.NoError(t, loopback.Close())
}

// hungKV reads for as long as somebody waits.
type hungKV struct{ *fakeKV }

func (hungKV) Range(ctx context.Context, _ *pb.RangeRequest) (*pb.RangeResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// Who hangs up at once has told nothing of the node. Who had waited has: one line says so.
func TestProbesThatAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		watches := newFakeWatches()
		s := New(Config{Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.NewTextHandler(&log, nil))},
			hungKV{newFakeKV()}, watches, newFakeLeases(), &fakeCluster{watches: watches})
		probe := func(path string, patience time.Duration) {
			ctx, leave := context.WithTimeout(t.Context(), patience)
			defer leave()
			s.HTTPHandler(nil, nil).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
		}
		for _, path := range []string{"/readyz", "/livez", "/readyz/linearizable_read", "/health"} {
			probe(path, time.Millisecond)
			require.Empty(t, log.String(), path)
			probe(path, time.Second)
			require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), log.String())
			require.Contains(t, log.String(), "waited=1s")
			log.Reset()
		}
	})
}
