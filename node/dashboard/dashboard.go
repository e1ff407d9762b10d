package dashboard

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/node/heat"
	"github.com/flotilla-kv/flotilla/router/adminapi"
	"github.com/flotilla-kv/flotilla/shard"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

//go:embed keys.js
var keysJS string

const (
	// freshFor is how long one view answers everybody.
	freshFor = time.Second
	// lookPatience bounds a look: first the meta group's leader is asked, then every node.
	lookPatience = 10 * time.Second
)

// Config is what the dashboard shows.
type Config struct {
	// Node is the name of the node that serves it.
	Node string
	// Cluster is looked at for each answer.
	Cluster adminapi.Cluster
	// Alarms are those of etcd's API.
	Alarms func() []*pb.AlarmMember
	// Heat is what is recorded of the keyspace, and a number that rises with each change of it.
	Heat func() ([]heat.Column, uint64)
	// NodeName is a node's name for people.
	NodeName func(shard.NodeID) string
	// Keys is where keys and values are read; nil: they are not shown.
	Keys   *Keys
	Logger *slog.Logger
}

// Dashboard is an http.Handler for / and the paths below /dashboard/.
type Dashboard struct {
	cfg    Config
	mux    *http.ServeMux
	page   []byte
	policy string

	// turn is held by the request that looks; the others wait for what it finds. It guards the fields below.
	turn  chan struct{}
	found []byte
	at    time.Time

	drawings drawings
	browses  chan struct{} // held by the requests that read keys
}

// New returns the dashboard of a node.
func New(cfg Config) *Dashboard {
	d := &Dashboard{cfg: cfg, mux: http.NewServeMux(), turn: make(chan struct{}, 1), browses: make(chan struct{}, browsesMax)}
	d.drawings.of = make(map[string]drawing)
	// The policy names the only script and the only style sheet by their digests: they are the page's own, byte for byte.
	d.page = []byte(strings.NewReplacer("{{css}}", pageCSS, "{{js}}", pageJS+keysJS).Replace(pageHTML))
	d.policy = fmt.Sprintf("default-src 'none'; script-src '%s'; style-src '%s'; connect-src 'self'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
		digest(pageJS+keysJS), digest(pageCSS))
	d.mux.HandleFunc("GET /{$}", d.servePage)
	d.mux.HandleFunc("GET /dashboard/state", d.serveState)
	d.mux.HandleFunc("GET /dashboard/heat", d.serveHeat)
	d.mux.HandleFunc("GET /dashboard/keys", d.browse(d.keyPage))
	d.mux.HandleFunc("GET /dashboard/key", d.browse(d.keyHistory))
	return d
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// Register adds the dashboard's paths.
func (d *Dashboard) Register(mux *http.ServeMux) {
	mux.Handle("/{$}", d)
	mux.Handle("/dashboard/", d)
}

// ServeHTTP implements http.Handler.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	// The page reads its own origin, and nobody else's page has to: what --cors allowed for etcd's API is taken back (B3).
	for _, name := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers"} {
		h.Del(name)
	}
	h.Set("Content-Security-Policy", d.policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cache-Control", "no-store")
	d.mux.ServeHTTP(w, r)
}

func (d *Dashboard) servePage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(d.page) // a browser that is gone needs no page
}

func (d *Dashboard) serveState(w http.ResponseWriter, r *http.Request) {
	body, err := d.state(r.Context())
	if err != nil {
		d.refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

// refuse answers that there is nothing to show, and why.
func (d *Dashboard) refuse(w http.ResponseWriter, code int, why error) {
	d.cfg.Logger.Debug("the dashboard does not show what it was asked for", "error", why)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	body, _ := json.Marshal(struct { // strings can always be marshalled
		Error string `json:"error"`
	}{why.Error()})
	_, _ = w.Write(body)
}

// state is the JSON of a State that is at most freshFor old.
func (d *Dashboard) state(ctx context.Context) ([]byte, error) {
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if d.found != nil && time.Since(d.at) < freshFor {
		return d.found, nil
	}
	// If this browser leaves, the next one that waits looks for itself.
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	view, err := d.cfg.Cluster.Look(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at the cluster: %w", err)
	}
	s, err := d.tell(ctx, view)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the state of the cluster: %w", err)
	}
	d.found, d.at = body, time.Now()
	return body, nil
}
