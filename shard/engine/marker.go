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

// Format is the version of everything in a store's directory: key layout, Pebble
// options that are recorded on disk, the Pebble format. A change that an older build
// could misread raises it.
const Format = 2

const (
	markerName   = "FLOTILLA-STORE"
	markerPrefix = "flotilla store format "
	markerMax    = 256 // a longer marker is not ours
)

// ErrForeignDirectory: the directory holds something that is not a store of ours.
var ErrForeignDirectory = errors.New("not a flotilla store")

// ErrNewerFormat: the store was written by a newer build.
var ErrNewerFormat = errors.New("store has a newer format")

// ErrOlderFormat: the store was written by a build before the first release.
var ErrOlderFormat = errors.New("store has an older format")

// checkMarker makes sure that dir is a store this build understands (E5), and makes
// an empty or missing dir one unless readOnly.
func checkMarker(fsys vfs.FS, dir string, readOnly bool) error {
	f, err := fsys.Open(fsys.PathJoin(dir, markerName))
	if errors.Is(err, fs.ErrNotExist) {
		return initialise(fsys, dir, readOnly)
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

// initialise writes the marker before anything else is in the directory, so that a
// store without a marker cannot come about by a crash.
func initialise(fsys vfs.FS, dir string, readOnly bool) error {
	names, err := fsys.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list store directory: %w", err)
	}
	temp := markerName + ".tmp"
	names = slices.DeleteFunc(names, func(n string) bool { return n == temp || n == "lost+found" })
	if len(names) > 0 {
		return fmt.Errorf("%s: holds %q and no %s: %w; use an empty directory", dir, names[0], markerName, ErrForeignDirectory)
	}
	if readOnly {
		return fmt.Errorf("%s: holds no store: %w; check the path", dir, ErrForeignDirectory)
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

// makeDirs makes dir and the parents it lacks, durably: each new directory's entry is
// synced in its parent.
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
