package etcdapi

import (
	"fmt"
	"net"
	"net/http"
	"slices"
)

// everybody in a list of origins or hosts stands for all, and so does an empty list.
const everybody = "*"

func allows(list []string, who string) bool {
	return len(list) == 0 || slices.Contains(list, everybody) || slices.Contains(list, who)
}

// Guard lets requests through to next as etcd does on its client port: only those for one of
// Config.Hosts, and it tells browsers whether a page of another origin may read the answer.
func (s *Server) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host := hostName(r.Host); !allows(s.cfg.Hosts, host) {
			http.Error(w, fmt.Sprintf("flotilla: host %q is not one of --host-whitelist", host), http.StatusMisdirectedRequest)
			return
		}
		if allows(s.cfg.Origins, everybody) {
			allowOrigin(w, everybody)
		} else if origin := r.Header.Get("Origin"); allows(s.cfg.Origins, origin) {
			allowOrigin(w, origin)
		}
		if r.Method == http.MethodOptions {
			return // the headers are the answer
		}
		next.ServeHTTP(w, r)
	})
}

func allowOrigin(w http.ResponseWriter, origin string) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Headers", "accept, content-type, authorization")
}

// hostName is the host of a Host header, which may have a port.
func hostName(hostPort string) string {
	if host, _, err := net.SplitHostPort(hostPort); err == nil {
		return host
	}
	return hostPort
}
