package raftlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

// machine has a disk, and shows files as its kernel has them in memory. Like Linux it takes what a sync that fails
// could not write for written: it is still shown, and the next sync succeeds.
type machine struct {
	vfs.FS    // what is shown
	disk      *vfs.MemFS
	syncs     int
	failing   int    // the sync that fails, from 1 on
	meanwhile func() // is called before its caller hears of it
}

func newMachine(failing int) *machine {
	return &machine{FS: vfs.NewMem(), disk: vfs.NewMem(), failing: failing, meanwhile: func() {}}
}

// open opens the log of a process that has just started.
func (m *machine) open() (*Log, error) { return open(dir, Options{FS: m, sizes: small}) }

// losesPower requires that the log has all that is to be durable when power is lost now.
func (m *machine) losesPower(t *testing.T, h *history) {
	t.Helper()
	l, err := open(dir, Options{FS: filesOf(t, m.disk).fs(t), sizes: small})
	require.NoError(t, err)
	found := history{slices.Clone(h.worlds), h.durable}
	found.find(t, l)
	require.NoError(t, l.Close())
}

func (m *machine) MkdirAll(path string, perm os.FileMode) error {
	return errors.Join(m.FS.MkdirAll(path, perm), m.disk.MkdirAll(path, perm))
}

func (m *machine) Rename(from, to string) error {
	return errors.Join(m.FS.Rename(from, to), m.disk.Rename(from, to))
}

func (m *machine) Remove(name string) error {
	return errors.Join(m.FS.Remove(name), m.disk.Remove(name))
}

func (m *machine) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := m.FS.OpenReadWrite(name, c, o...)
	stored, errStored := m.disk.OpenReadWrite(name, c, o...)
	return &machineFile{File: f, stored: stored, of: m}, errors.Join(err, errStored)
}

type machineFile struct {
	vfs.File
	stored vfs.File
	of     *machine
	dirty  []func() error // writes that are not on the disk
}

func (f *machineFile) WriteAt(p []byte, at int64) (int, error) {
	p = slices.Clone(p)
	f.dirty = append(f.dirty, func() error {
		_, err := f.stored.WriteAt(p, at)
		return err
	})
	return f.File.WriteAt(slices.Clone(p), at)
}

func (f *machineFile) Sync() error { return f.SyncData() }

func (f *machineFile) SyncData() error {
	dirty := f.dirty
	f.dirty = nil
	if f.of.syncs++; f.of.syncs == f.of.failing {
		f.of.meanwhile()
		return errorfs.ErrInjected
	}
	for _, write := range dirty {
		if err := write(); err != nil {
			return err
		}
	}
	return nil
}

// Each sync fails in one run. What can be read after it by another process is not on the disk, though that can sync it, and is to
// be durable once it was found.
func TestFailedSyncsAreNotForgotten(t *testing.T) {
	withSeeds(t, func(t *testing.T, rng *rand.Rand) {
		for failing := 1; ; failing++ {
			m, h := newMachine(failing), newHistory()
			l, err := m.open()
			for i := 0; err == nil && i < 60; i++ {
				err = h.do(l, draw(rng, h.now()))
			}
			if err == nil && m.syncs < failing {
				require.Greater(t, failing, 20)
				return
			}
			require.ErrorIs(t, err, errorfs.ErrInjected)
			m.losesPower(t, h)
			for range 2 { // the second finds what the first has written
				l, err = m.open()
				require.NoError(t, err)
				h.find(t, l)
				h.durable = len(h.worlds) - 1
				m.losesPower(t, h)
				for range rng.IntN(5) {
					require.NoError(t, h.do(l, draw(rng, h.now())))
					m.losesPower(t, h)
				}
			}
		}
	})
}

// While a sync fails somebody else goes on in the next segment: a sync of his own, of the same file, succeeds.
func TestASyncFailsBesideAnother(t *testing.T) {
	m := newMachine(0)
	l, err := m.open()
	require.NoError(t, err)
	m.failing = m.syncs + 1
	m.meanwhile = func() {
		for id := uint64(2); l.newest().number == 1; id++ {
			require.NoError(t, l.SaveBootstrapInfo(id, 1, raftpb.Bootstrap{Addresses: map[uint64]string{1: fmt.Sprint("peer ", id)}}))
		}
	}
	save := func(l *Log, first, last uint64) error {
		return l.SaveRaftState([]raftpb.Update{{ShardID: 1, ReplicaID: 1, State: raftpb.State{Term: 1}, EntriesToSave: entries(1, first, last)}}, 1)
	}
	require.ErrorIs(t, save(l, 1, 2), errorfs.ErrInjected)

	l, err = m.open()
	require.NoError(t, err)
	require.NoError(t, save(l, 3, 4))
	l, err = open(dir, Options{FS: filesOf(t, m.disk).fs(t), sizes: small})
	require.NoError(t, err)
	_, held := all(t, l, 1, 1, 0)
	require.Len(t, held, 4)
	require.NoError(t, l.Close())
}
