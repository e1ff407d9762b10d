package node_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/flotilla-kv/flotilla/internal/proccluster"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
)

// fault is what fails on the disk of a node of its own process, while a file says that it does.
type fault struct {
	in     []string // parts of paths, one of which it must have
	ops    []errorfs.OpKind
	reason syscall.Errno
	goesOn bool // the node does not end
}

// faults are by the name of their case: the process of the node is told that name.
func faults() map[string]fault {
	room := []errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpFilePreallocate}
	syncs := []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo}
	return map[string]fault{
		"the Raft log cannot be written":         {[]string{"/segments/"}, room, syscall.ENOSPC, false},
		"the Raft log cannot be synced":          {[]string{"/segments/"}, syncs, syscall.EIO, false},
		"no segment can be made":                 {[]string{"/segments/new"}, []errorfs.OpKind{errorfs.OpOpen}, syscall.ENOSPC, false},
		"no segment can be begun":                {[]string{"/segments/new", "/segments/spare"}, []errorfs.OpKind{errorfs.OpRename}, syscall.ENOSPC, false},
		"the log's directory cannot be synced":   {[]string{"/segments\n"}, syncs, syscall.ENOSPC, false},
		"the store's tables cannot be written":   {[]string{".sst\n", ".blob\n"}, room, syscall.ENOSPC, true},
		"nothing can be written":                 {[]string{""}, room, syscall.ENOSPC, false},
		"nothing can be synced":                  {[]string{""}, syncs, syscall.EIO, false},
		"the store's manifest cannot be written": {[]string{"MANIFEST"}, room, syscall.ENOSPC, false},
	}
}

// fails says whether an operation does, by its path and a newline.
func (f fault) fails(op errorfs.Op) bool {
	return slices.Contains(f.ops, op.Kind) && slices.ContainsFunc(f.in, func(part string) bool { return strings.Contains(op.Path+"\n", part) })
}

// full is the file that says that a node's disk is.
func full(dataDir string) string { return dataDir + ".full" }

// serveOnAFaultyDisk is the process of a node, whose disk has the fault of a case.
func serveOnAFaultyDisk(args []string) int {
	name, dataDir, client, peer, which := args[0], args[1], args[2], args[3], args[4]
	f := faults()[which]
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg := node.Config{
		Name: name, DataDir: dataDir, ClientAddr: client, PeerAddr: peer, TickInterval: 100 * time.Millisecond, CacheBytes: 8 << 20, MinFreeDisk: 1,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)), Registerer: prometheus.NewRegistry(),
		FS: errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if !f.fails(op) {
				return nil
			}
			if _, err := os.Stat(full(dataDir)); err != nil {
				return nil
			}
			return &os.PathError{Op: "use", Path: op.Path, Err: f.reason}
		})),
	}
	n, err := node.New(cfg)
	if err == nil {
		err = n.Start(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer n.Close()
	select {
	case <-ctx.Done():
		return 0
	case <-n.Done():
		fmt.Fprintln(os.Stderr, n.Err())
		return 1
	}
}

// diskCase is a node of its own process, and what it has acknowledged.
type diskCase struct {
	*proccluster.Node
	log    string
	client *clientv3.Client
	acked  []string
}

func startOnFaultyDisk(t *testing.T, which string) *diskCase {
	self, err := proccluster.Self()
	require.NoError(t, err)
	dir := t.TempDir()
	c, err := proccluster.New(t, proccluster.Config{
		Program: self, Nodes: 1, Dir: dir,
		Args: func(n proccluster.Spec, _ []proccluster.Spec) []string {
			return []string{n.Name, n.DataDir, n.ClientAddr, n.PeerAddr, which}
		},
	})
	require.NoError(t, err)
	require.NoError(t, c.Start(t.Context()))
	client, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	n := c.Nodes()[0]
	return &diskCase{Node: n, log: filepath.Join(dir, n.Name+".log"), client: client}
}

// put puts large values until there were as many, or the node has ended.
func (d *diskCase) put(t *testing.T, n int) {
	t.Helper()
	for i := 0; i < n && d.Running(); i++ {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		key := fmt.Sprint("k", len(d.acked))
		if _, err := d.client.Put(ctx, key, d.value(key)); err == nil {
			d.acked = append(d.acked, key)
		}
		cancel()
	}
}

// value is large, so that what happens once in so many bytes happens soon.
func (d *diskCase) value(key string) string { return strings.Repeat(key+" ", (1<<20)/(len(key)+1)) }

// requireAll requires that what was acknowledged is there.
func (d *diskCase) requireAll(t *testing.T) {
	t.Helper()
	for _, key := range d.acked {
		resp, err := d.client.Get(t.Context(), key)
		require.NoError(t, err)
		require.Len(t, resp.Kvs, 1, key)
		require.Equal(t, d.value(key), string(resp.Kvs[0].Value))
	}
}

func (d *diskCase) fill(t *testing.T) { require.NoError(t, os.WriteFile(full(d.DataDir), nil, 0o644)) }

func (d *diskCase) makeRoom(t *testing.T) { require.NoError(t, os.Remove(full(d.DataDir))) }

// said reports whether the node has printed the words since it was started last.
func (d *diskCase) said(t *testing.T, words string) bool {
	t.Helper()
	log, err := os.ReadFile(d.log)
	require.NoError(t, err)
	_, last, _ := bytes.Cut(log[bytes.LastIndex(log, []byte("--- start")):], []byte("\n"))
	return bytes.Contains(last, []byte(words))
}

// A node whose disk is full, or fails, says so and stops, or goes on when it can. It starts again when the disk works, and has all
// that it has acknowledged.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for which, f := range faults() {
		t.Run(which, func(t *testing.T) {
			t.Parallel()
			d := startOnFaultyDisk(t, which)
			d.put(t, 3)
			d.fill(t)
			d.put(t, 60)
			require.GreaterOrEqual(t, len(d.acked), 3)
			require.Equal(t, f.goesOn, d.Running(), "after %d puts", len(d.acked))
			require.True(t, d.said(t, f.reason.Error()))

			if !d.Running() { // it may start where nothing is written that cannot be; otherwise it says why not
				require.NoError(t, d.Start())
				testcluster.Until(t, "it starts or says why not", func() bool {
					return d.said(t, f.reason.Error()) || d.said(t, proccluster.ReadyLineDefault)
				})
			}
			d.makeRoom(t)
			testcluster.Eventually(t, "it serves again", func(ctx context.Context) error {
				if !d.Running() {
					if err := d.Start(); err != nil {
						return err
					}
				}
				return d.WaitReady(ctx)
			})
			d.requireAll(t)
			acked := len(d.acked)
			d.put(t, 1)
			require.Len(t, d.acked, acked+1)
		})
	}
}
