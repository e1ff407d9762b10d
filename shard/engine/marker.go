package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Format is the version of everything in a store's directory: the key layout, the Pebble options that are recorded on
// disk, and Pebble's format. A change that an older build could misread must raise it.
const Format = 2

const (
	markerName   = "FLOTILLA-STORE"
	markerPrefix = "flotilla store format "
	markerMax    = 256 // a longer marker is not ours
)

// ErrForeignDirectory: the directory holds something other than a store of ours.
var ErrForeignDirectory = errors.New("not a flotilla store")

// ErrNewerFormat: the store was written by a newer build.
var ErrNewerFormat = errors.New("store has a newer format")

// ErrOlderFormat: the store was written by a build before the first release.
var ErrOlderFormat = errors.New("store has an older format")

// checkMarker checks that dir is a store that this build understands (E5). It turns an empty or missing dir into one.
func checkMarker(fsys vfs.FS, dir string) error {
	f, err := fsys.Open(fsys.PathJoin(dir, markerName))
	if errors.Is(err, fs.ErrNotExist) {
		return initialise(fsys, dir)
	}
	if err != nil {
		return fmt.Errorf("open store marker: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, markerMax))
	if err != nil {
		return fmt.Errorf("read store marker: %w", err)
	}
	number, ok := strings.CutPrefix(strings.TrimSpace(string(text)), markerPrefix)
	version, err := strconv.Atoi(number)
	if !ok || err != nil || version < 1 {
		return fmt.Errorf("%s: marker %s reads %q: %w; point the data directory elsewhere, or restore it from a backup",
			dir, markerName, text, ErrForeignDirectory)
	}
	if version > Format {
		return fmt.Errorf("%s: format %d, this build knows up to %d: %w; start the newer build that wrote it",
			dir, version, Format, ErrNewerFormat)
	}
	if version < Format {
		return fmt.Errorf("%s: format %d, this build knows %d only: %w; run the build that wrote it again, or start with an empty directory",
			dir, version, Format, ErrOlderFormat)
	}
	return nil
}

// initialise writes the marker before anything else enters the directory, so that a crash cannot leave a store
// without a marker.
func initialise(fsys vfs.FS, dir string) error {
	names, err := fsys.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list store directory: %w", err)
	}
	temp := markerName + ".tmp"
	names = slices.DeleteFunc(names, func(n string) bool { return n == temp || n == "lost+found" })
	if len(names) > 0 {
		return fmt.Errorf("%s: holds %q and no %s: %w; use an empty directory", dir, names[0], markerName, ErrForeignDirectory)
	}
	if err := makeDirs(fsys, dir); err != nil {
		return err
	}
	if err := writeSynced(fsys, fsys.PathJoin(dir, temp), fmt.Sprintf("%s%d\n", markerPrefix, Format)); err != nil {
		return fmt.Errorf("write store marker: %w", err)
	}
	if err := fsys.Rename(fsys.PathJoin(dir, temp), fsys.PathJoin(dir, markerName)); err != nil {
		return fmt.Errorf("name store marker: %w", err)
	}
	return syncDir(fsys, dir)
}

// makeDirs creates dir and any missing parents, durably: the entry of each new directory is synced in its parent.
func makeDirs(fsys vfs.FS, dir string) error {
	if _, err := fsys.Stat(dir); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at directory %s: %w", dir, err)
	}
	parent := fsys.PathDir(dir)
	if parent != dir {
		if err := makeDirs(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	return syncDir(fsys, parent)
}

func writeSynced(fsys vfs.FS, path, text string) error {
	f, err := fsys.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("open directory %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
