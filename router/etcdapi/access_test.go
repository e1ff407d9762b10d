package etcdapi

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// What etcd 3.7.3 answers with --cors and --host-whitelist, and without, except where a name says so.
func TestOriginsAndHosts(t *testing.T) {
	const page = "http://page.example"
	for _, tc := range []struct {
		name           string
		cfg            Config
		method         string
		host, origin   string
		tls            bool
		code           int
		allowed, reads string // the origin that is allowed, and what was asked for
	}{
		{name: "everybody, unless it is said", host: "a:2379", origin: page, code: 200, allowed: "*", reads: "GET"},
		{name: "also who does not say where from", host: "a", code: 200, allowed: "*", reads: "GET"},
		{name: "all", cfg: Config{Origins: []string{page, "*"}}, host: "a", origin: "http://x", code: 200, allowed: "*", reads: "GET"},
		{name: "one origin", cfg: Config{Origins: []string{page}}, host: "a", origin: page, code: 200, allowed: page, reads: "GET"},
		{name: "another is answered, but its browser is not told that it may look", cfg: Config{Origins: []string{page}}, host: "a", origin: "http://x", code: 200, reads: "GET"},
		{name: "a question beforehand goes no further", method: "OPTIONS", host: "a", origin: page, code: 200, allowed: "*"},
		{name: "a host", cfg: Config{Hosts: []string{"a", "b"}}, host: "b:2379", code: 200, allowed: "*", reads: "GET"},
		{name: "an address", cfg: Config{Hosts: []string{"::1"}}, host: "[::1]:2379", code: 200, allowed: "*", reads: "GET"},
		{name: "another host", cfg: Config{Hosts: []string{"a"}}, host: "rebound.example:2379", origin: page, code: 421},
		{name: "another host by TLS, which etcd does not look at", tls: true, cfg: Config{Hosts: []string{"a"}}, host: "rebound.example:2379", code: 421},
		{name: "all hosts", cfg: Config{Hosts: []string{"*"}}, host: "c", code: 200, allowed: "*", reads: "GET"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var reads string
			guarded := New(tc.cfg, nil, nil, nil, nil).Guard(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reads = r.Method }))
			r := httptest.NewRequest(tc.method, "http://"+tc.host+"/v3/kv/range", nil)
			if tc.tls {
				r.TLS = &tls.ConnectionState{}
			}
			if tc.origin != "" {
				r.Header.Set("Origin", tc.origin)
			}
			w := httptest.NewRecorder()
			guarded.ServeHTTP(w, r)
			require.Equal(t, tc.code, w.Code)
			require.Equal(t, tc.allowed, w.Header().Get("Access-Control-Allow-Origin"))
			if tc.allowed != "" {
				require.Equal(t, "POST, GET, OPTIONS, PUT, DELETE", w.Header().Get("Access-Control-Allow-Methods"))
				require.Equal(t, "accept, content-type, authorization", w.Header().Get("Access-Control-Allow-Headers"))
			}
			require.Equal(t, tc.reads, reads)
			if tc.code == http.StatusMisdirectedRequest {
				require.Contains(t, w.Body.String(), `"rebound.example" is not one of --host-whitelist`)
			}
		})
	}
}
