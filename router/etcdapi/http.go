package etcdapi

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/version"
)

// HTTPHandler serves etcd's HTTP endpoints. gateway serves the JSON API and metrics
// GET /metrics; either may be nil, then its paths do not exist.
func (s *Server) HTTPHandler(gateway, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/health", s.serveHealth)
	s.handleProbe(mux, "livez", s.livenessChecks())
	s.handleProbe(mux, "readyz", s.readinessChecks())
	mux.HandleFunc("/version", serveVersion)
	if metrics != nil {
		mux.Handle("/metrics", metrics)
	}
	if gateway != nil {
		gateway = limitBody(gateway, s.cfg.MaxRequestBytes)
		mux.Handle("/v3/", gateway)
		mux.Handle("/v3beta/", renameBeta(gateway))
	}
	return mux
}

func serveVersion(w http.ResponseWriter, r *http.Request) {
	if !allowGet(w, r) {
		return
	}
	body, err := json.Marshal(version.Versions{Server: etcdVersion(), Cluster: clusterVersion(), Storage: clusterVersion()})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // a client that is gone needs no answer
}

// allowGet refuses, with etcd's answer, every method but GET.
func allowGet(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet {
		return true
	}
	w.Header().Set("Allow", http.MethodGet)
	http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	return false
}

// renameBeta serves the paths of old clients: /v3beta/ is /v3/.
func renameBeta(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		renamed := r.Clone(r.Context())
		renamed.URL.Path = "/v3/" + strings.TrimPrefix(r.URL.Path, "/v3beta/")
		renamed.URL.RawPath = ""
		next.ServeHTTP(w, renamed)
	})
}

// Limits for a client that sends its request slowly or keeps a connection idle.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 5 * time.Minute
)

// NewHTTPServer returns an HTTP server for the handler. Whole requests have no timeout, because
// watches last. Client errors are logged at level debug.
func NewHTTPServer(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}
