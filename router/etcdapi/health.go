package etcdapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// healthKey is the key that health checks read. It need not exist; the point is that its shard
// answers. etcdctl's own check reads the same key.
const healthKey = "health"

// check is one part of a probe; nil means healthy.
type check struct {
	name string
	run  func(context.Context) error
}

// livenessChecks determine whether restarting this node would help.
func (s *Server) livenessChecks() []check {
	return []check{{"serializable_read", s.readCheck(true)}}
}

// readinessChecks determine whether to send requests here. The two reads together distinguish a
// broken node from a cluster without quorum.
func (s *Server) readinessChecks() []check {
	return []check{
		{"data_corruption", s.corruptionCheck},
		{"serializable_read", s.readCheck(true)},
		{"linearizable_read", s.readCheck(false)},
		// A node is a member from its first moment; only its replicas can be learners.
		{"non_learner", func(context.Context) error { return nil }},
	}
}

// corruptionCheck concerns this node alone. Damage on another node is contained there; if all nodes
// failed for it, the containment would be pointless.
func (s *Server) corruptionCheck(context.Context) error {
	if s.cluster.Damaged() {
		return errors.New("alarm activated: CORRUPT")
	}
	return nil
}

func (s *Server) readCheck(serializable bool) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := s.kv.Range(ctx, &pb.RangeRequest{
			Key: []byte(healthKey), KeysOnly: true, Limit: 1, Serializable: serializable,
		})
		if err == nil {
			return nil
		}
		if !gone(ctx) {
			s.cfg.Logger.Warn("health check cannot read", "serializable", serializable, "error", err)
		}
		return errors.New(rpctypes.ErrorDesc(readError(ctx, err)))
	}
}

// gone reports whether whoever asked has hung up: what failed then says nothing of this node.
func gone(ctx context.Context) bool { return ctx.Err() != nil }

// probePatience is what a probe may expect: one that left before it had its own reasons.
const probePatience = 500 * time.Millisecond

// reportGone logs that whoever sent a probe has hung up before the answer. If it had waited, that
// may be all that shows why this node counts as unhealthy.
func (s *Server) reportGone(ctx context.Context, probe string, began time.Time) {
	level, waited := slog.LevelDebug, time.Since(began)
	if waited >= probePatience {
		level = slog.LevelWarn
	}
	s.cfg.Logger.Log(context.WithoutCancel(ctx), level, "probe was given up before its answer", "probe", probe, "waited", waited)
}

// serveHealth answers GET /health. Query: exclude=NOSPACE ignores an alarm, serializable=true
// checks this node instead of the cluster.
func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	if !allowGet(w, r) {
		return
	}
	query, began := r.URL.Query(), time.Now()
	reason := s.unhealthy(r.Context(), query["exclude"], query.Get("serializable") == "true")
	body, err := json.Marshal(struct {
		Health string `json:"health"`
		Reason string `json:"reason"`
	}{strconv.FormatBool(reason == ""), reason})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if reason != "" {
		s.checks.failures.Inc()
		if gone(r.Context()) {
			s.reportGone(r.Context(), "health", began)
		} else {
			s.cfg.Logger.Warn("unhealthy", "reason", reason)
		}
		http.Error(w, string(body), http.StatusServiceUnavailable)
		return
	}
	s.checks.success.Inc()
	_, _ = w.Write(body) // a probe that is gone needs no answer
}

// unhealthy returns the first reason to call this node unhealthy, or "".
func (s *Server) unhealthy(ctx context.Context, exclude []string, serializable bool) string {
	for _, a := range s.cluster.Alarms() {
		name := a.Alarm.String()
		switch {
		case slices.Contains(exclude, name), a.Alarm == pb.AlarmType_CORRUPT: // of that, below
		case a.Alarm == pb.AlarmType_NOSPACE:
			return "ALARM " + name
		default:
			return "ALARM UNKNOWN"
		}
	}
	if name := pb.AlarmType_CORRUPT.String(); s.cluster.Damaged() && !slices.Contains(exclude, name) { // as corruptionCheck
		return "ALARM " + name
	}
	if !serializable && !s.cluster.HasLeader() {
		return "RAFT NO LEADER"
	}
	if err := s.readCheck(serializable)(ctx); err != nil {
		return "RANGE ERROR:" + err.Error()
	}
	return ""
}

// handleProbe serves a probe, /livez for example, and each of its checks below it. Query: verbose
// lists the checks, exclude=name omits one.
func (s *Server) handleProbe(mux *http.ServeMux, probe string, checks []check) {
	mux.HandleFunc("/"+probe, func(w http.ResponseWriter, r *http.Request) {
		exclude := r.URL.Query()["exclude"]
		s.serveChecks(w, r, probe, slices.DeleteFunc(slices.Clone(checks), func(c check) bool {
			return slices.Contains(exclude, c.name)
		}))
	})
	for _, c := range checks {
		mux.HandleFunc("/"+probe+"/"+c.name, func(w http.ResponseWriter, r *http.Request) {
			s.serveChecks(w, r, probe, []check{c})
		})
	}
}

func (s *Server) serveChecks(w http.ResponseWriter, r *http.Request, probe string, checks []check) {
	if !allowGet(w, r) {
		return
	}
	var report strings.Builder
	failed, began := false, time.Now()
	for _, c := range checks {
		err := c.run(r.Context())
		s.checks.record(probe, c.name, err)
		if err != nil {
			failed = true
			fmt.Fprintf(&report, "[-]%s failed: %v\n", c.name, err)
		} else {
			fmt.Fprintf(&report, "[+]%s ok\n", c.name)
		}
	}
	if failed {
		// Failures are reported even without verbose.
		if gone(r.Context()) {
			s.reportGone(r.Context(), probe, began)
		} else {
			s.cfg.Logger.Warn("probe failed", "probe", probe, "report", report.String())
		}
		http.Error(w, report.String(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.URL.Query().Has("verbose") {
		_, _ = io.WriteString(w, report.String())
	}
	_, _ = io.WriteString(w, "ok\n") // a probe that is gone needs no answer
}
