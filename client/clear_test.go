package client

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// A client whose endpoints are https sends its password to no node in the clear, whatever the node advertises.
func TestPasswordsAreNotSentInTheClear(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cfg    Config
		refuse bool
	}{
		"https":            {Config{Endpoints: []string{"https://n1:1"}, Username: "ann"}, true},
		"http":             {Config{Endpoints: []string{"n1:1", "http://n1:1"}, Username: "ann"}, false},
		"without password": {Config{Endpoints: []string{"https://n1:1"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNodes(test.cfg.withDefaults(), newDirectory(), nil, nil)
			defer n.close()
			_, err := n.at(endpoint{addr: "n1:1", secure: true})
			require.NoError(t, err)
			if _, err = n.at(endpoint{addr: "n2:1"}); test.refuse {
				require.ErrorIs(t, err, shard.ErrUnavailable)
				require.ErrorContains(t, err, "https")
				return
			}
			require.NoError(t, err)
		})
	}
}
