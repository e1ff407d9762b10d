package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/flotilla-kv/flotilla/shard"
)

// Peer is a node as another one remembers it.
type Peer struct {
	NodeID   shard.NodeID `json:"node_id"`
	Name     string       `json:"name"`
	PeerAddr string       `json:"peer_addr"`
	// Meta says that it has a replica of the meta group.
	Meta bool `json:"meta,omitempty"`
}

const (
	peersFile   = "peers.json"
	peersFormat = 1
)

// peersContent is the file's content: the nodes of the cluster in the node's last run. It finds
// them again when no founder is left.
type peersContent struct {
	Format int    `json:"format"`
	Peers  []Peer `json:"peers"`
}

// loadPeers reads the file; it does not exist before the node first knew the table.
func loadPeers(fsys vfs.FS, dir string) ([]Peer, error) {
	path := fsys.PathJoin(dir, peersFile)
	data, err := readFile(fsys, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var content peersContent
	if err := json.Unmarshal(data, &content); err != nil || content.Format != peersFormat {
		return nil, fmt.Errorf("%s is damaged or of another version (format %d, this one reads %d: %v); remove the file, the node then asks those that founded the cluster",
			path, content.Format, peersFormat, err)
	}
	return content.Peers, nil
}

func savePeers(fsys vfs.FS, dir string, peers []Peer) error {
	data, err := json.MarshalIndent(peersContent{peersFormat, peers}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the nodes of the cluster: %w", err)
	}
	return replaceFile(fsys, dir, peersFile, append(data, '\n'))
}

// rememberPeers writes the file whenever the nodes in the table change, until ctx ends.
func (n *Node) rememberPeers() {
	written := n.remembered
	for {
		m, changed := n.table.next()
		if m.ClusterID() != 0 {
			if peers := peersOf(m, n.self); !slices.Equal(peers, written) {
				if err := savePeers(n.cfg.FS, n.cfg.DataDir, peers); err != nil {
					n.log.Warn("cannot write down who the other nodes are", "error", err)
				} else {
					written = peers
				}
			}
		}
		select {
		case <-changed:
		case <-n.ctx.Done():
			return
		}
	}
}
