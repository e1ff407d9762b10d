package heat

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// TestStories draws columns of few shards. In a story:
//
//	column at=SECONDS   takes a column; each line is a cell: START SHARD LEADER WRITES READS, or START SHARD ? if its leader
//	                    is unknown. A dot is the first key.
//	draw at=SECONDS rows=N
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var r Record
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var seconds, rows int
			d.ScanArgs(t, "at", &seconds)
			at := start.Add(time.Duration(seconds) * time.Second)
			if d.Cmd == "column" {
				r.Add(Column{at, cellsOf(t, d.Input)})
				return ""
			}
			d.ScanArgs(t, "rows", &rows)
			columns, _ := r.Columns()
			return picture(Draw(columns, at, rows))
		})
	})
}

func cellsOf(t *testing.T, input string) (cells []Cell) {
	for line := range strings.Lines(input) {
		c := Cell{Shards: 1}
		f := strings.Fields(line)
		if f[0] != "." {
			c.Start = []byte(f[0])
		}
		_, err := fmt.Sscan(f[1], &c.Shard)
		require.NoError(t, err)
		if f[2] != "?" {
			c.Known = true
			_, err := fmt.Sscan(strings.Join(f[2:], " "), &c.Leader, &c.Writes, &c.Reads)
			require.NoError(t, err)
		}
		cells = append(cells, c)
	}
	return cells
}

// picture has a line for each row: of each column the writes, the reads and the shard.
func picture(g *Grid) string {
	var b strings.Builder
	for row, at := range g.Rows {
		fmt.Fprintf(&b, "%-4s", string(at)+".")
		for _, c := range g.Columns {
			text := "gap"
			if c != nil {
				q := c[row]
				text = fmt.Sprintf("%.4g/%.4g %d@%d", q.Writes, q.Reads, q.Shard, q.Leader)
				if !q.Known {
					text = fmt.Sprintf("? %d", q.Shard)
				}
				if q.Shards > 1 {
					text += fmt.Sprintf("+%d", q.Shards-1)
				}
			}
			fmt.Fprintf(&b, " | %-11s", text)
		}
		b.WriteString("|\n")
	}
	if len(g.Rows) == 0 {
		return "nothing\n"
	}
	return b.String()
}

// cells makes a column of so many shards.
func cells(random *rand.Rand, n int) (out []Cell) {
	keys := make(map[string]bool)
	for len(keys) < n-1 {
		keys[fmt.Sprintf("%06d", random.IntN(1_000_000))] = true
	}
	out = append(out, Cell{Shard: 1, Shards: 1, Known: true, Leader: 1, Writes: random.ExpFloat64()})
	for i, k := range slices.Sorted(func(yield func(string) bool) {
		for k := range keys {
			if !yield(k) {
				return
			}
		}
	}) {
		out = append(out, Cell{Start: []byte(k), Shard: shard.ID(i + 2), Shards: 1, Known: true, Leader: 1, Writes: random.ExpFloat64(), Reads: random.ExpFloat64()})
	}
	return out
}

func sums(cells []Cell) (writes, reads float64, shards int) {
	for _, c := range cells {
		writes, reads, shards = writes+c.Writes, reads+c.Reads, shards+c.Shards
	}
	return writes, reads, shards
}

// H1, H2, H3, of many shards that come and go.
func TestNothingIsLost(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var r Record
	var all [][]Cell
	for i := range 30 {
		one := cells(random, 1+random.IntN(3000))
		less := reduce(one, cellsMax)
		require.LessOrEqual(t, len(less), cellsMax)
		require.Empty(t, less[0].Start)
		require.True(t, slices.IsSortedFunc(less, func(a, b Cell) int { return strings.Compare(string(a.Start), string(b.Start)) }))
		writes, reads, shards := sums(one)
		w, rd, n := sums(less)
		require.InEpsilon(t, writes, w, 1e-9)
		require.InDelta(t, reads, rd, 1e-9*max(1, reads))
		require.Equal(t, shards, n)
		all = append(all, less)
		r.Add(Column{start.Add(time.Duration(i) * Interval), less})
	}
	columns, _ := r.Columns()
	for _, most := range []int{1, 7, 160} {
		g := Draw(columns, start.Add(29*Interval+Interval/2), most)
		require.Len(t, g.Columns, 30)
		require.LessOrEqual(t, len(g.Rows), most)
		require.Greater(t, len(g.Rows)*2, most, "it uses the rows it may use")
		for i, c := range g.Columns {
			writes, reads, _ := sums(all[i])
			for _, q := range c {
				writes, reads = writes-q.Writes, reads-q.Reads
				require.True(t, q.Known)
			}
			require.InDelta(t, 0, writes, 1e-6)
			require.InDelta(t, 0, reads, 1e-6)
		}
	}
}

// What is busy keeps rows of its own, and what is quiet is not one row for that.
func TestBusyRowsAreNarrow(t *testing.T) {
	weights := make([]float64, 1000)
	weights[700] = 5000
	found := groups(weights, 100)
	require.LessOrEqual(t, len(found), 100)
	require.Greater(t, len(found), 50)
	require.Contains(t, found, group{700, 701})
	require.Len(t, groups(make([]float64, 1000), 100), 100)
	random := rand.New(rand.NewPCG(2, 2))
	for range 100 {
		for i := range weights {
			weights[i] = random.ExpFloat64() * random.ExpFloat64()
		}
		found = groups(weights, 1+random.IntN(200))
		at := 0
		for _, g := range found {
			require.Equal(t, at, g.from)
			require.Greater(t, g.to, g.from)
			at = g.to
		}
		require.Equal(t, 1000, at)
	}
}

// H3
func TestAnHourIsKept(t *testing.T) {
	var r Record
	add := func(at time.Duration) {
		r.Add(Column{start.Add(at), []Cell{{Shard: 2, Shards: 1, Known: true}, {Start: []byte("k"), Shard: 3, Shards: 1, Known: true}}})
	}
	for i := range 1000 {
		add(time.Duration(i) * Interval)
	}
	add(999*Interval + Interval/3) // of the same time
	columns, version := r.Columns()
	require.Len(t, columns, columnsMax)
	require.EqualValues(t, 1000, version)
	require.Equal(t, start.Add(999*Interval), r.Last())
	require.Same(t, &columns[0].Cells[1].Start[0], &columns[columnsMax-1].Cells[1].Start[0], "a key is kept once")
	require.Len(t, r.Since(start.Add(990*Interval)), 9)
	require.Len(t, r.Since(time.Time{}), columnsMax)
	add(1000 * time.Hour)
	columns, _ = r.Columns()
	require.Len(t, columns, 1)
}
