package raftlog

import (
	"bytes"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// The crash tests do random steps (model_test.go) and note the world after each. A log that is opened after
// something went wrong must hold one of them: not an earlier one than the last that was durable (R1), and no mixture (R2).

var seed = flag.Int64("seed", 0, "seed of the crash tests; 0 tries several")

func withSeeds(t *testing.T, test func(t *testing.T, rng *rand.Rand)) {
	seeds := []int64{1, 2, 3, 4}
	if *seed != 0 {
		seeds = []int64{*seed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			t.Logf("again: go test ./shard/raftlog -run '%s' -seed=%d", t.Name(), seed)
			test(t, rand.New(rand.NewPCG(uint64(seed), 1)))
		})
	}
}

// history is the worlds that there were.
type history struct {
	worlds  []world // after so many steps
	durable int     // of them are
}

func newHistory() *history { return &history{worlds: []world{{}}} }

func (h *history) now() world { return h.worlds[len(h.worlds)-1] }

// do does a step. Its world may be the one from when it begins, and is it once it is durable.
func (h *history) do(l *Log, s step) error {
	h.worlds = append(h.worlds, s.next)
	err := s.do(l)
	if err == nil && s.durable {
		h.durable = len(h.worlds) - 1
	}
	return err
}

// find requires that what a log holds is one of the worlds from the last durable one on, and forgets those after it.
func (h *history) find(t *testing.T, l *Log) {
	t.Helper()
	got := read(t, l)
	for i := len(h.worlds) - 1; i >= h.durable; i-- {
		if equalWorlds(h.worlds[i], got) {
			h.worlds = h.worlds[:i+1]
			return
		}
	}
	require.Equal(t, fmt.Sprint(h.worlds[h.durable]), fmt.Sprint(got), "it is none of the %d worlds after this one either", len(h.worlds)-1-h.durable)
}

func equalWorlds(a, b world) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// cut is the file system of a machine that lost power.
type cut struct {
	fs      *vfs.MemFS
	before  string
	history history
}

// Power is lost before each change of the file system, with all that was not synced, and with a part of it. After
// that it is opened, and used, and loses power again.
func TestCrash(t *testing.T) {
	withSeeds(t, func(t *testing.T, rng *rand.Rand) {
		fs, h := vfs.NewCrashableMem(), newHistory()
		for round := range 3 {
			cuts := crash(t, rng, fs, h)
			t.Logf("round %d: %d cuts", round, len(cuts))
			for i := range cuts {
				c := &cuts[i]
				l, err := open(dir, Options{FS: c.fs, sizes: small})
				require.NoError(t, err, c.before)
				c.history.find(t, l)
				require.NoError(t, l.Close())
			}
			last := cuts[rng.IntN(len(cuts))]
			fs, h = last.fs, &last.history
			h.durable = len(h.worlds) - 1 // it was closed
		}
	})
}

// crash does steps and takes copies meanwhile.
func crash(t *testing.T, rng *rand.Rand, fs *vfs.MemFS, h *history) (cuts []cut) {
	o := Options{sizes: small, FS: errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead || op.Kind == errorfs.OpMkdirAll {
			return nil
		}
		for _, percent := range []int{0, 1 + rng.IntN(100)} {
			cuts = append(cuts, cut{
				fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}), fmt.Sprint(op, percent),
				history{slices.Clone(h.worlds), h.durable},
			})
		}
		return nil
	}))}
	l, err := open(dir, o)
	require.NoError(t, err)
	for range 120 {
		if rng.IntN(20) == 0 { // the process is killed: what it has written is there, synced or not
			if rng.IntN(2) == 0 {
				read(t, l) // has it written first
			}
			l, err = open(dir, o)
			require.NoError(t, err)
			h.find(t, l)
			h.durable = len(h.worlds) - 1
		}
		s := draw(rng, h.now())
		require.NoError(t, h.do(l, s), s.name)
	}
	require.Equal(t, fmt.Sprint(h.now()), fmt.Sprint(read(t, l)))
	require.NoError(t, l.Close())
	return cuts
}

// Each change of the file system fails, one in each run, or all from it on: everything fails then, no change is tried again or
// made any more, the operator is told once (R7), and what was durable is there after a start. Only zeros that cannot be written
// ahead are nobody's concern.
func TestFailures(t *testing.T) {
	withSeeds(t, func(t *testing.T, rng *rand.Rand) {
		steps := rng.Uint64()
		for n := 0; ; n++ {
			for _, ever := range []bool{false, true} {
				fs, h, rng := vfs.NewMem(), newHistory(), rand.New(rand.NewPCG(steps, 1))
				changes := 0
				var kind errorfs.OpKind
				failed := fails(t, rng, h, &changes, errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
					opens := op.Kind == errorfs.OpOpen || op.Kind == errorfs.OpOpenDir
					if op.Kind.ReadOrWrite() == errorfs.OpIsRead && !opens || op.Kind == errorfs.OpFileClose {
						return nil
					}
					if changes++; changes-1 == n || ever && changes > n {
						kind = op.Kind
						return errorfs.ErrInjected
					}
					return nil
				})))
				l, err := open(dir, Options{FS: fs, sizes: small})
				require.NoError(t, err, "after failure %d", n)
				h.find(t, l)
				require.NoError(t, l.Close())
				if changes <= n {
					require.False(t, failed)
					require.Greater(t, n, 100)
					return
				}
				require.True(t, failed || !ever && kind == errorfs.OpFileWriteAt)
			}
		}
	})
}

// fails does steps until one fails, and requires that all others do then, without a change.
func fails(t *testing.T, rng *rand.Rand, h *history, changes *int, fs vfs.FS) bool {
	var logged bytes.Buffer
	l, err := open(dir, Options{FS: fs, sizes: small, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		require.ErrorIs(t, err, errorfs.ErrInjected)
		return true
	}
	for range 60 {
		s := draw(rng, h.now())
		if err = h.do(l, s); err != nil {
			break
		}
	}
	if err == nil {
		if err = l.Close(); err != nil {
			require.ErrorIs(t, err, errorfs.ErrInjected)
		}
		return err != nil
	}
	require.ErrorIs(t, err, errorfs.ErrInjected)
	made := *changes
	for id := range uint64(shards) { // also when something is read that is not written yet
		if s, err := l.ReadRaftState(id+1, 1, 0); err == nil && s.EntryCount > 0 {
			_, _, err = l.IterateEntries(nil, 0, id+1, 1, s.FirstIndex, s.FirstIndex+s.EntryCount, 1<<40)
			require.ErrorIs(t, err, errorfs.ErrInjected)
		}
	}
	for range 10 {
		s := draw(rng, h.now())
		if s.name != "tidy" {
			require.ErrorIs(t, s.do(l), errorfs.ErrInjected, s.name)
		}
	}
	require.ErrorIs(t, l.Close(), errorfs.ErrInjected)
	require.Equal(t, made, *changes)
	require.Equal(t, 1, strings.Count(logged.String(), "raft log: it has failed"), logged.String())
	return true
}
