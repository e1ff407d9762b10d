package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/node/heat"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/adminapi"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// world is a Cluster that tests look at.
type world struct {
	view  *adminapi.View
	err   error
	looks atomic.Int32
	took  time.Duration

	columns []heat.Column
}

func (w *world) Look(context.Context) (*adminapi.View, error) {
	w.looks.Add(1)
	if w.took > 0 {
		<-time.After(w.took)
	}
	return w.view, w.err
}

// founded is three nodes with shards that are cut at the keys. All have just been heard of, and n1 leads.
func founded(t *testing.T, keys ...string) *adminapi.View {
	t.Helper()
	init := &placementpb.InitCluster{ClusterId: 9, ReplicationFactor: 3, Meta: &shardpb.Descriptor{ShardId: uint64(shard.MetaID), Generation: 1}}
	for _, key := range keys {
		init.SplitKeys = append(init.SplitKeys, []byte(key))
	}
	for i, name := range []string{"n1", "n2", "n3"} {
		init.Meta.Replicas = append(init.Meta.Replicas, &shardpb.Replica{ReplicaId: uint64(i + 1), NodeId: uint64(i + 1)})
		init.Nodes = append(init.Nodes, &placementpb.Node{NodeId: uint64(i + 1), Name: name, PeerAddr: name + ":1", Incarnation: []byte(name)})
	}
	table := placement.NewState()
	require.NoError(t, placement.ResultError(table.Apply(&placementpb.Command{Body: &placementpb.Command_InitCluster{InitCluster: init}})))
	now := time.Now()
	v := &adminapi.View{Now: now, Map: table.Map(), Load: &placement.Load{
		Since: now, Nodes: make(map[shard.NodeID]placement.NodeLoad), Shards: make(map[shard.ID]placement.ShardLoad),
	}}
	for _, n := range v.Map.Nodes() {
		v.Load.Nodes[n.ID] = placement.NodeLoad{Heard: now, DiskTotal: 1000, DiskFree: 600}
	}
	for _, d := range append(v.Map.Shards(), v.Map.Shard(shard.MetaID)) {
		if d != nil {
			v.Load.Shards[d.ID] = placement.ShardLoad{Heard: now, Leader: 1, Writes: 7}
		}
	}
	return v
}

func newDashboard(w *world, alarms ...*pb.AlarmMember) *Dashboard {
	return New(Config{
		Node: "n1", Cluster: w, Alarms: func() []*pb.AlarmMember { return alarms }, Logger: slog.New(slog.DiscardHandler),
		Heat: func() ([]heat.Column, uint64) { return w.columns, 1 }, NodeName: func(id shard.NodeID) string { return "n" + id.String() },
	})
}

func get(t *testing.T, d http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	w.Header().Set("Access-Control-Allow-Origin", "*") // as the client port's guard has done
	d.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w
}

func stateOf(t *testing.T, d http.Handler) *State {
	t.Helper()
	w := get(t, d, "/dashboard/state")
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	s := &State{}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), s))
	return s
}

// B2, B3: the policy allows exactly the script and the style sheet of the page, and nothing comes from elsewhere.
func TestPageIsClosed(t *testing.T) {
	d := newDashboard(&world{view: founded(t)})
	for _, path := range []string{"/", "/dashboard/state", "/dashboard/heat", "/dashboard/keys", "/dashboard/key", "/dashboard/nothing"} {
		h := get(t, d, path).Header()
		require.Empty(t, h.Values("Access-Control-Allow-Origin"), path)
		require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
		require.Equal(t, "DENY", h.Get("X-Frame-Options"))
		require.Equal(t, "no-store", h.Get("Cache-Control"))
		require.NotContains(t, h.Get("Content-Security-Policy"), "unsafe")
	}
	w := get(t, d, "/")
	page, policy := w.Body.String(), w.Header().Get("Content-Security-Policy")
	require.Contains(t, policy, "default-src 'none'")
	for _, tag := range []string{"script", "style"} {
		inside := regexp.MustCompile(`(?s)<`+tag+`>(.*?)</`+tag+`>`).FindAllStringSubmatch(page, -1)
		require.Len(t, inside, 1, tag)
		require.Contains(t, policy, tag+"-src '"+digest(inside[0][1])+"'")
	}
	require.NotRegexp(t, `(?i)\son\w+\s*=|\bsrc=|href="[^#]|style="`, pageHTML, "inline handlers, or something from elsewhere")
	require.NotRegexp(t, `https?://|@import|url\(`, page, "something from elsewhere")
	require.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function`, pageJS+keysJS)
}

// B1: there is nothing but to read.
func TestNothingButReading(t *testing.T) {
	d := newDashboard(&world{view: founded(t)})
	for _, path := range []string{"/", "/dashboard/state", "/dashboard/heat", "/dashboard/keys", "/dashboard/key"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			w := httptest.NewRecorder()
			d.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
			require.Equal(t, http.StatusMethodNotAllowed, w.Code, method)
		}
	}
}

// B2: whatever keys are, they are printable text.
func TestKeysAreText(t *testing.T) {
	html, binary, long := `<img src=x onerror=alert(1)>`, "\x00\xff\u202e\u2028\x1b[2J", "z"+strings.Repeat("é", 400)
	d := newDashboard(&world{view: founded(t, binary, html, long)})
	raw := get(t, d, "/dashboard/state").Body.String()
	require.NotContains(t, raw, "<", "encoding/json escapes it")
	s := stateOf(t, d)
	require.Equal(t, []string{`""`, `"\x00\xff\u202e\u2028\x1b[2J"`, `"<img src=x onerror=alert(1)>"`},
		[]string{s.Shards[0].Start, s.Shards[1].Start, s.Shards[2].Start})
	require.Equal(t, "∞", s.Shards[3].End)
	require.Less(t, len(s.Shards[3].Start), 4*keyBytesMax)
	require.Contains(t, s.Shards[3].Start, "(801 bytes)")
	require.Equal(t, s.Shards[2].End, s.Shards[3].Start)
}

// The heat map is told by rows of keys, as text (B2): what is unknown is null, and a time without a column too.
func TestHeatIsTold(t *testing.T) {
	now := time.Now()
	cells := func(leader shard.NodeID) []heat.Cell {
		return []heat.Cell{
			{Shard: 2, Shards: 1, Known: true, Leader: leader, Writes: 1234.56, Reads: 2},
			{Start: []byte("<b>\xff"), Shard: 3, Shards: 4},
		}
	}
	w := &world{view: founded(t), columns: []heat.Column{{At: now.Add(-7 * heat.Interval / 2), Cells: cells(1)}, {At: now.Add(-heat.Interval / 2), Cells: cells(3)}}}
	ask := func(measure string) *Heat {
		got := get(t, newDashboard(w), "/dashboard/heat?measure="+measure)
		require.Equal(t, http.StatusOK, got.Code)
		require.NotContains(t, got.Body.String(), "<")
		h := &Heat{}
		require.NoError(t, json.Unmarshal(got.Body.Bytes(), h))
		return h
	}
	h := ask("writes")
	require.Equal(t, []string{`""`, `"<b>\xff"`}, h.Rows)
	require.Equal(t, [][]Figure{{1235, -1}, nil, nil, {1235, -1}}, h.Values)
	require.Equal(t, [][]Owner{{{0, 2, "n1", 1}, {3, 2, "n3", 1}}, {{0, 3, "", 4}}}, h.Owners)
	require.Equal(t, Figure(2), ask("reads").Values[0][0])
	require.Equal(t, http.StatusBadRequest, get(t, newDashboard(w), "/dashboard/heat?measure=all").Code)
	require.JSONEq(t, `{"measure":"writes","interval_millis":20000,"age_millis":-1,"rows":[],"values":[],"owners":[]}`,
		get(t, newDashboard(&world{}), "/dashboard/heat").Body.String())
}

func TestHealthyClusterHasNoProblems(t *testing.T) {
	s := stateOf(t, newDashboard(&world{view: founded(t, "g")}))
	require.Empty(t, s.Problems)
	require.Equal(t, []any{"n1", 3, 2, "n1", 7.0, true}, []any{s.Node, len(s.Nodes), len(s.Shards), s.Shards[0].Leader, s.Shards[0].Writes, s.Balancer.On})
	require.NotNil(t, s.Meta)
}

// What is not known is not told as if it were: n1 led all and has fallen silent, n3 was never heard of.
func TestSilence(t *testing.T) {
	v := founded(t, "g")
	long := v.Now.Add(-time.Minute)
	v.Load.Nodes[1] = placement.NodeLoad{Heard: long, DiskTotal: 1000}
	delete(v.Load.Nodes, 3)
	for id, l := range v.Load.Shards {
		l.Heard = long
		v.Load.Shards[id] = l
	}
	s := stateOf(t, newDashboard(&world{view: v}, &pb.AlarmMember{MemberID: 2, Alarm: pb.AlarmType_NOSPACE}))
	require.Equal(t, []bool{true, false, true}, []bool{s.Nodes[0].Silent, s.Nodes[1].Silent, s.Nodes[2].Silent})
	require.Empty(t, s.Shards[0].Leader)
	require.Zero(t, s.Shards[0].Writes)
	require.Equal(t, []string{
		"2 shards (2, 3) without a majority of replicas that answer and are fit: requests wait",
		"the meta group has no known leader: nothing is placed anew",
		"alarm NOSPACE of n2", "n1 does not answer", "n3 has not been heard of",
	}, s.Problems)
}

func TestUnknownPlacementIsTold(t *testing.T) {
	w := get(t, newDashboard(&world{err: errors.New("the placement table is not known yet")}), "/dashboard/state")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	body, err := io.ReadAll(w.Body)
	require.NoError(t, err)
	require.JSONEq(t, `{"error":"look at the cluster: the placement table is not known yet"}`, string(body))
}

// B4
func TestManyBrowsersShareALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{view: founded(t), took: 300 * time.Millisecond}
		d := newDashboard(w)
		ask := func() {
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() { get(t, d, "/dashboard/state") })
			}
			all.Wait()
		}
		ask()
		require.EqualValues(t, 1, w.looks.Load())
		<-time.After(freshFor)
		ask()
		require.EqualValues(t, 2, w.looks.Load())
	})
}
