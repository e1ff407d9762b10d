package node

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/auth"
)

// An attempt to enable authentication that neither succeeds nor is undone is undone after a while, each from its own begin.
func TestArmingEnds(t *testing.T) {
	t.Parallel()
	var seen arming
	first, second := &placement.Auth{Armed: true, ArmedAt: 5}, &placement.Auth{Armed: true, ArmedAt: 8}
	require.Zero(t, seen.overdue(first, time.Minute))
	require.Zero(t, seen.overdue(first, time.Minute+armingMax-1))
	require.Zero(t, seen.overdue(second, time.Minute+armingMax))
	require.Zero(t, seen.overdue(&placement.Auth{}, time.Minute+2*armingMax-1))
	require.Zero(t, seen.overdue(second, time.Minute+2*armingMax))
	require.Equal(t, uint64(8), seen.overdue(second, time.Minute+3*armingMax))
	require.Zero(t, seen.overdue(&placement.Auth{Armed: true, ArmedAt: 8, Enabled: true}, time.Minute+4*armingMax))
}

// What nodes have confirmed of an attempt to enable authentication says nothing of a later one.
func TestALaterAttemptIsNotConfirmed(t *testing.T) {
	t.Parallel()
	require.EqualValues(t, 5, armedBy(&placement.Auth{Armed: true, ArmedAt: 5}, 5))
	require.EqualValues(t, 5, armedBy(&placement.Auth{Armed: true, ArmedAt: 5}, 6), "somebody had armed before")
	require.Zero(t, armedBy(&placement.Auth{}, 5))
	require.Zero(t, armedBy(&placement.Auth{Armed: true, ArmedAt: 7}, 5))
}

// Until authentication is enabled, browsers are asked for no password, from wherever they come. A node that cannot tell serves none.
func TestBrowsersOfAnArmedNode(t *testing.T) {
	t.Parallel()
	a := &access{node: &Node{}, guard: auth.New(auth.Config{Uptime: func() time.Duration { return 0 }})}
	page := a.browsers(auth.NewPasswords(0), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	look := func(addr string) int {
		r, w := httptest.NewRequest(http.MethodGet, "/dashboard", nil), httptest.NewRecorder()
		r.RemoteAddr = addr
		page.ServeHTTP(w, r)
		return w.Code
	}
	both := func() [2]int { return [2]int{look("127.0.0.1:1"), look("10.0.0.1:1")} }
	require.Equal(t, [2]int{http.StatusOK, http.StatusOK}, both())
	armed := &placement.Auth{Version: 5, Revision: 1, Armed: true}
	a.guard.Learn(armed)
	require.Equal(t, [2]int{http.StatusServiceUnavailable, http.StatusServiceUnavailable}, both())
	a.guard.Confirm(0, armed)
	require.Equal(t, [2]int{http.StatusOK, http.StatusOK}, both())
	a.guard.Confirm(0, &placement.Auth{Version: 6, Revision: 1, Armed: true, Enabled: true})
	require.Equal(t, [2]int{http.StatusUnauthorized, http.StatusForbidden}, both())
}
