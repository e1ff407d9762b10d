package node

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/flotilla-kv/flotilla/shard"
)

// identityFormat is the version of the identity file.
const identityFormat = 1

// Identity identifies the owner of a data directory. It is written once when the directory is made
// (Incarnation) and once more when the node has become part of a cluster.
type Identity struct {
	Format int `json:"format"`
	// Incarnation is chosen at random when the directory is made: the same name with another
	// incarnation is a node that lost its data (D2).
	Incarnation []byte `json:"incarnation"`
	// Cluster is nil until the node belongs to one.
	Cluster *Membership `json:"cluster,omitempty"`
	// Stored says that the store has been created. If it is missing later, data was lost that this node has promised
	// to keep (D2).
	Stored bool `json:"stored,omitempty"`
	// Guarded says that authentication may be enabled. The node then serves nobody until it has heard from the meta
	// group's leader.
	Guarded bool `json:"guarded,omitempty"`
}

// Membership is a node's place in its cluster.
type Membership struct {
	NodeID   shard.NodeID `json:"node_id"`
	Name     string       `json:"name"`
	PeerAddr string       `json:"peer_addr"`
	Founding Founding     `json:"founding"`
}

// Founding describes the founding of the cluster: the same on all nodes, for ever.
type Founding struct {
	ClusterID uint64 `json:"cluster_id"`
	// Founders are the initial nodes. The first three found the meta group.
	Founders          []Founder `json:"founders"`
	InitialSplits     string    `json:"initial_splits"`
	ReplicationFactor int       `json:"replication_factor"`
}

// Founder is one of the initial nodes.
type Founder struct {
	NodeID      shard.NodeID `json:"node_id"`
	Name        string       `json:"name"`
	PeerAddr    string       `json:"peer_addr"`
	Incarnation []byte       `json:"incarnation"`
}

// metaMembersMax is how many founders found the meta group.
const metaMembersMax = 3

// metaMembers are the founders of the meta group; the replica ID of each is its position in the
// list plus one.
func (f *Founding) metaMembers() []Founder {
	return f.Founders[:min(len(f.Founders), metaMembersMax)]
}

// metaMember returns the replica with which a node founds the meta group, or 0 if it does not, and the addresses of
// all such replicas.
func (f *Founding) metaMember(id shard.NodeID) (own shard.ReplicaID, members map[shard.ReplicaID]string) {
	members = make(map[shard.ReplicaID]string)
	for i, n := range f.metaMembers() {
		members[shard.ReplicaID(i+1)] = n.PeerAddr
		if n.NodeID == id {
			own = shard.ReplicaID(i + 1)
		}
	}
	return own, members
}

// peers returns the founders in the form in which a node remembers others.
func (f *Founding) peers() []Peer {
	var peers []Peer
	for i, n := range f.Founders {
		peers = append(peers, Peer{NodeID: n.NodeID, Name: n.Name, PeerAddr: n.PeerAddr, Meta: i < metaMembersMax})
	}
	return peers
}

// founder returns the founder with the given name or peer address.
func (f *Founding) founder(name, peerAddr string) (Founder, bool) {
	for _, n := range f.Founders {
		if n.Name == name || n.PeerAddr == peerAddr {
			return n, true
		}
	}
	return Founder{}, false
}

const identityFile = "identity.json"

// loadIdentity reads the identity, or makes a new one in an empty directory.
func loadIdentity(fsys vfs.FS, dir string) (*Identity, error) {
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory %s: %w", dir, err)
	}
	path := fsys.PathJoin(dir, identityFile)
	data, err := readFile(fsys, path)
	if errors.Is(err, fs.ErrNotExist) {
		return newIdentity(fsys, dir)
	}
	if err != nil {
		return nil, err
	}
	var id Identity
	if err := json.Unmarshal(data, &id); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w); restore it from a backup, or remove the node from the cluster and join again with an empty data directory", path, err)
	}
	if id.Format != identityFormat {
		return nil, fmt.Errorf("%s has format %d, this version reads format %d; start a version of flotilla that is at least as new as the one that wrote it", path, id.Format, identityFormat)
	}
	return &id, nil
}

// readFile reads a whole file; fs.ErrNotExist when there is none.
func readFile(fsys vfs.FS, path string) ([]byte, error) {
	file, err := fsys.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer file.Close()
	data, err := io.ReadAll(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

func newIdentity(fsys vfs.FS, dir string) (*Identity, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list the data directory %s: %w", dir, err)
	}
	for _, name := range names {
		if name != lockFile && name != identityFile+".new" {
			return nil, fmt.Errorf("data directory %s has no %s but is not empty (%s); it is not a node's: give another --data-dir", dir, identityFile, name)
		}
	}
	id := &Identity{Format: identityFormat, Incarnation: make([]byte, 16)}
	rand.Read(id.Incarnation)
	return id, id.save(fsys, dir)
}

// save replaces the identity file atomically and durably (D1).
func (id *Identity) save(fsys vfs.FS, dir string) error {
	data, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the identity: %w", err)
	}
	return replaceFile(fsys, dir, identityFile, append(data, '\n'))
}

// replaceFile writes a file of the data directory atomically and durably.
func replaceFile(fsys vfs.FS, dir, name string, data []byte) error {
	path := fsys.PathJoin(dir, name)
	file, err := fsys.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = fsys.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(fsys, dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

const lockFile = "LOCK"

// lockDir keeps a second process out of the directory.
func lockDir(fsys vfs.FS, dir string) (io.Closer, error) {
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory %s: %w", dir, err)
	}
	lock, err := fsys.Lock(fsys.PathJoin(dir, lockFile))
	switch {
	case err == nil:
		return lock, nil
	case errors.As(err, new(*fs.PathError)):
		// The file cannot be opened: nobody else holds it.
		return nil, fmt.Errorf("lock the data directory %s: %w", dir, err)
	default:
		return nil, fmt.Errorf("data directory %s is in use by another process (or cannot be locked): %w", dir, err)
	}
}

// randomID returns a random ID that is not 0 and positive as an int64.
func randomID() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return max(1, binary.BigEndian.Uint64(b[:])>>1)
}
