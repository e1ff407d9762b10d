package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
)

// The admin port shows the shards, and takes moves, by the names of nodes, and splits.
func TestOperatorsByTheAdminPort(t *testing.T) {
	admin := testcluster.Lease(t)
	c := moveCluster(t, func(name string, cfg *node.Config) {
		if name == "n1" {
			cfg.AdminAddr = admin
		}
	})
	ask := func(method, path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+admin+path, nil)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}
	d := theShard(c.Node(1))
	_, shards := ask(http.MethodGet, "/shards")
	require.Contains(t, shards, fmt.Sprintf(`shard %d ["", ∞) epoch 1 generation 1: 1@n1 2@n2 3@n3`, d.ID))
	for path, want := range map[string]string{
		"/move?shard=x":                                   "want a number",
		"/move?shard=99&to=n4":                            "there is no such shard",
		fmt.Sprintf("/move?shard=%d&to=n9", d.ID):         "no node of this name",
		fmt.Sprintf("/move?shard=%d&from=n4", d.ID):       "has no replica of it",
		fmt.Sprintf("/cancel?shard=%d&operator=77", d.ID): "has ended",
		fmt.Sprintf("/cancel?shard=%d&operator=no", d.ID): "want a number",
		fmt.Sprintf("/move?shard=%d&from=n1&to=n1", d.ID): "name two nodes",
		"/split":                   "is not inside its span",
		"/prefer?shard=99&node=n1": "there is no such shard",
		fmt.Sprintf("/prefer?shard=%d&node=n4", d.ID): "replica",
	} {
		code, said := ask(http.MethodPost, path)
		require.Equal(t, http.StatusConflict, code, path)
		require.Contains(t, said, want, path)
	}
	code, said := ask(http.MethodPost, fmt.Sprintf("/move?shard=%d&from=n2&to=n4", d.ID))
	require.Equal(t, http.StatusOK, code, said)
	require.True(t, strings.HasPrefix(said, "operator "), said)
	testcluster.Eventually(t, "the shards to show it", func(context.Context) error {
		if _, shards := ask(http.MethodGet, "/shards"); !strings.Contains(shards, ": 1@n1 3@n3 4@n4\n") {
			return fmt.Errorf("they are %s", shards)
		}
		return nil
	})
	code, said = ask(http.MethodPost, fmt.Sprintf("/prefer?shard=%d&node=n3", d.ID))
	require.Equal(t, http.StatusOK, code, said)
	testcluster.Eventually(t, "the node that is preferred to lead", func(context.Context) error {
		if d := theShard(c.Node(3)); d.PreferredNode != c.Node(3).Inside().ID() {
			return fmt.Errorf("node %d is preferred", d.PreferredNode)
		}
		return nil
	})
	testcluster.Eventually(t, "a split to begin", func(context.Context) error {
		if code, said := ask(http.MethodPost, "/split?key=%6d"); code != http.StatusOK {
			return errors.New(said)
		}
		return nil
	})
	testcluster.Eventually(t, "the shards to show it", func(context.Context) error {
		if _, shards := ask(http.MethodGet, "/shards"); !strings.Contains(shards, `["m", ∞) epoch 2`) {
			return fmt.Errorf("they are %s", shards)
		}
		return nil
	})
}
