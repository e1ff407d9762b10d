package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/node/dashboard"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// fromBrowser gets a path of a node's client port.
func fromBrowser(ctx context.Context, n *testcluster.Node, host, path string) (*http.Response, error) {
	return fromBrowserOf(ctx, n, nil, host, path)
}

// fromBrowserOf is fromBrowser of a user who has logged in.
func fromBrowserOf(ctx context.Context, n *testcluster.Node, user *url.Userinfo, host, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.ClientAddr()+path, nil)
	if err != nil {
		return nil, err
	}
	req.Host, req.Close = host, true
	req.Header.Set("Origin", "http://elsewhere.example")
	if password, ok := user.Password(); ok {
		req.SetBasicAuth(user.Username(), password)
	}
	return http.DefaultClient.Do(req)
}

func dashboardState(ctx context.Context, n *testcluster.Node) (*dashboard.State, error) {
	r, err := fromBrowser(ctx, n, "flotilla.example", "/dashboard/state")
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return nil, errors.New(r.Status)
	}
	s := &dashboard.State{}
	return s, json.NewDecoder(r.Body).Decode(s)
}

// Every node shows the same cluster on its client port, to those who name it as they may, and goes on while others do not
// answer.
func TestDashboard(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "g", Edit: func(_ string, cfg *node.Config) {
		cfg.HostWhitelist = []string{"flotilla.example"}
	}})
	const html = "<script>alert(1)</script>\xff"
	_, err := admin(t, c, c.Node(1)).Split(t.Context(), &adminpb.SplitRequest{Key: []byte(html)})
	require.NoError(t, err)
	for _, n := range c.Nodes() {
		r, err := fromBrowser(t.Context(), n, "flotilla.example", "/")
		require.NoError(t, err)
		require.NoError(t, r.Body.Close())
		require.Equal(t, http.StatusOK, r.StatusCode)
		require.Contains(t, r.Header.Get("Content-Security-Policy"), "default-src 'none'")
		require.Empty(t, r.Header.Get("Access-Control-Allow-Origin"), "--cors is for the API")
		for _, path := range []string{"/", "/dashboard/state"} {
			r, err = fromBrowser(t.Context(), n, "rebound.example", path)
			require.NoError(t, err)
			require.NoError(t, r.Body.Close())
			require.Equal(t, http.StatusMisdirectedRequest, r.StatusCode)
		}
		testcluster.Eventually(t, "the dashboard of "+n.Name+" to show three shards", func(ctx context.Context) error {
			s, err := dashboardState(ctx, n)
			if err != nil {
				return err
			}
			if s.Node != n.Name || len(s.Nodes) != 3 || len(s.Shards) != 3 || s.Shards[1].Start != `"<script>alert(1)</script>\xff"` || len(s.Balancer.Operators) != 0 {
				return fmt.Errorf("it shows %+v", s)
			}
			for _, told := range s.Nodes {
				if told.UpMillis <= 0 {
					return fmt.Errorf("node %s is %+v", told.Name, told)
				}
			}
			for _, d := range s.Shards {
				if d.Leader == "" || len(d.Replicas) != 3 {
					return fmt.Errorf("shard %d is %+v", d.ID, d)
				}
			}
			return nil
		})
	}
	for _, n := range c.Nodes() { // one of them records, the others copy
		testcluster.Eventually(t, n.Name+" to have recorded the keyspace", func(ctx context.Context) error {
			r, err := fromBrowser(ctx, n, "flotilla.example", "/dashboard/heat")
			if err != nil {
				return err
			}
			defer r.Body.Close()
			h := &dashboard.Heat{}
			if err := json.NewDecoder(r.Body).Decode(h); err != nil {
				return err
			}
			if len(h.Values) == 0 || len(h.Rows) < 2 {
				return fmt.Errorf("it tells %+v", h)
			}
			return nil
		})
	}

	c.Node(2).Stop()
	c.Node(3).Stop()
	testcluster.Eventually(t, "the last node to tell that it is alone", func(ctx context.Context) error {
		s, err := dashboardState(ctx, c.Node(1))
		if err != nil {
			return err
		}
		if len(s.Problems) == 0 || !strings.HasPrefix(s.Problems[0], "3 shards (2, ") {
			return fmt.Errorf("it tells %q of %+v", s.Problems, s.Nodes)
		}
		for _, n := range s.Nodes { // in the order of their IDs, which founders get by their ports
			if n.Silent == (n.Name == c.Node(1).Name) {
				return fmt.Errorf("it tells of %+v", n)
			}
		}
		return nil
	})
}

// Keys are browsed through any node, with their history, and by nobody any more once authentication is enabled.
func TestDashboardKeys(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "g,n", Edit: func(_ string, cfg *node.Config) { cfg.DashboardKeys = true }})
	kv := c.Client(t, c.Node(1))
	ctx := t.Context()
	for _, key := range []string{"apple", "grape", "orange"} {
		put(t, kv, key, "1")
	}
	put(t, kv, "grape", "2")
	gone, err := kv.Delete(ctx, "grape")
	require.NoError(t, err)
	lease, err := kv.Grant(ctx, 600)
	require.NoError(t, err)
	_, err = kv.Put(ctx, "grape", "secret", clientv3.WithLease(lease.ID))
	require.NoError(t, err)
	askAs := func(n *testcluster.Node, user *url.Userinfo, path string, told any) int {
		r, err := fromBrowserOf(ctx, n, user, "localhost", path)
		require.NoError(t, err)
		defer r.Body.Close()
		if r.StatusCode == http.StatusOK {
			require.NoError(t, json.NewDecoder(r.Body).Decode(told))
		}
		return r.StatusCode
	}
	ask := func(n *testcluster.Node, path string, told any) int { return askAs(n, nil, path, told) }
	for _, n := range c.Nodes() {
		page := &dashboard.KeyPage{}
		require.Equal(t, http.StatusOK, ask(n, "/dashboard/keys", page))
		require.Len(t, page.Keys, 3)
		require.Equal(t, 3, page.Shards)
		require.Empty(t, page.Next)
		page = &dashboard.KeyPage{}
		require.Equal(t, http.StatusOK, ask(n, fmt.Sprint("/dashboard/keys?at=", gone.Header.Revision), page))
		require.Len(t, page.Keys, 2)
		h := &dashboard.KeyHistory{}
		require.Equal(t, http.StatusOK, ask(n, "/dashboard/key?key=grape", h))
		var told []string
		for _, v := range h.Versions {
			if v.Deleted {
				require.Equal(t, gone.Header.Revision, v.Revision)
				told = append(told, "deleted")
			} else {
				told = append(told, v.Value.Text)
			}
		}
		require.Equal(t, []string{"secret", "deleted", "2", "1"}, told)
		require.EqualValues(t, 600, h.Lease.Granted)
		require.Positive(t, h.Lease.Left)
	}
	r, err := fromBrowser(ctx, c.Node(1), "rebound.example", "/dashboard/keys")
	require.NoError(t, err)
	require.NoError(t, r.Body.Close())
	require.Equal(t, http.StatusForbidden, r.StatusCode)

	for _, step := range []func() error{
		func() error { _, err := kv.UserAdd(ctx, "root", "r"); return err },
		func() error { _, err := kv.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := kv.AuthEnable(ctx); return err },
	} {
		require.NoError(t, step())
	}
	for _, n := range c.Nodes() {
		for _, path := range []string{"/dashboard/keys", "/dashboard/key?key=grape"} {
			require.Equal(t, http.StatusUnauthorized, ask(n, path, nil))
		}
		page := &dashboard.KeyPage{}
		require.Equal(t, http.StatusOK, askAs(n, url.UserPassword("root", "r"), "/dashboard/keys", page))
		require.Len(t, page.Keys, 3)
		require.Equal(t, http.StatusUnauthorized, askAs(n, url.UserPassword("root", "wrong"), "/dashboard/keys", nil))
	}
}
