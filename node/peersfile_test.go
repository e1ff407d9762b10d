package node

import (
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// The bytes of peers.json: a change of them is another format.
func TestPeersFile(t *testing.T) {
	fsys := vfs.NewMem()
	none, err := loadPeers(fsys, "")
	require.NoError(t, err)
	require.Empty(t, none)
	peers := []Peer{{NodeID: 1, Name: "n1", PeerAddr: "n1:2380", Meta: true}, {NodeID: 4, Name: "n4", PeerAddr: "n4:2380"}}
	require.NoError(t, savePeers(fsys, "", peers))
	file, err := fsys.Open(peersFile)
	require.NoError(t, err)
	data, err := io.ReadAll(file)
	require.NoError(t, err)
	require.Equal(t, `{
  "format": 1,
  "peers": [
    {
      "node_id": 1,
      "name": "n1",
      "peer_addr": "n1:2380",
      "meta": true
    },
    {
      "node_id": 4,
      "name": "n4",
      "peer_addr": "n4:2380"
    }
  ]
}
`, string(data))
	got, err := loadPeers(fsys, "")
	require.NoError(t, err)
	require.Equal(t, peers, got)

	require.NoError(t, replaceFile(fsys, "", peersFile, []byte(`{"format":2}`)))
	_, err = loadPeers(fsys, "")
	require.ErrorContains(t, err, "of another version (format 2, this one reads 1")
	require.NoError(t, replaceFile(fsys, "", peersFile, []byte(`{`)))
	_, err = loadPeers(fsys, "")
	require.ErrorContains(t, err, "is damaged")
}
