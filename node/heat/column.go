package heat

import (
	"bytes"
	"slices"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
)

// Cell is what was done per second in a part of the keyspace, which ends where the next cell begins.
type Cell struct {
	Start []byte
	// Shard is the busiest of the Shards that share the cell, and Leader the node that leads it.
	Shard  shard.ID
	Leader shard.NodeID
	Shards int
	// Known is false if no shard of the cell has a leader that reports. The rates are those of the shards that have.
	Known         bool
	Writes, Reads float64
}

// busy is what cells are compared by.
func (c *Cell) busy() float64 { return c.Writes + c.Reads }

// Column is the keyspace at one moment.
type Column struct {
	At    time.Time
	Cells []Cell
}

// Take makes a column of what is known of the shards. Reports of before heardAfter are too old.
func Take(m *placement.Map, l *placement.Load, now, heardAfter time.Time) Column {
	column := Column{At: now}
	for _, d := range m.Shards() {
		cell := Cell{Start: d.Span.Start, Shard: d.ID, Shards: 1}
		if s := l.Shards[d.ID]; s.Leader != 0 && s.Heard.After(heardAfter) {
			cell.Known, cell.Leader, cell.Writes, cell.Reads = true, s.Leader, s.Writes, s.Reads
		}
		column.Cells = append(column.Cells, cell)
	}
	column.Cells = reduce(column.Cells, cellsMax)
	return column
}

// reduce puts neighbours together until there are at most so many cells (H2).
func reduce(cells []Cell, most int) []Cell {
	if len(cells) <= most {
		return cells
	}
	weights := make([]float64, len(cells))
	for i := range cells {
		weights[i] = cells[i].busy()
	}
	var out []Cell
	for _, g := range groups(weights, most) {
		one, top := cells[g.from], 0.0
		one.Writes, one.Reads, one.Shards, one.Known = 0, 0, 0, false
		for i := g.from; i < g.to; i++ {
			c := &cells[i]
			one.Writes, one.Reads, one.Shards = one.Writes+c.Writes, one.Reads+c.Reads, one.Shards+c.Shards
			if c.Known && (!one.Known || c.busy() > top) {
				one.Shard, one.Leader, one.Known, top = c.Shard, c.Leader, true, c.busy()
			}
		}
		out = append(out, one)
	}
	return out
}

// group is some neighbours, by index.
type group struct{ from, to int }

// groups divides neighbours into at most so many groups of about the same weight, so that what is busy stays apart. Each
// also has a share of the mean, so that the quiet do not all become one.
func groups(weights []float64, most int) []group {
	total := 0.0
	for _, w := range weights {
		total += w
	}
	mean := total / float64(len(weights))
	if mean == 0 {
		mean = 1
	}
	divide := func(limit float64) (out []group) {
		sum := 0.0
		for i, w := range weights {
			w += mean
			if i == 0 || sum+w > limit {
				out, sum = append(out, group{i, i}), 0
			}
			out[len(out)-1].to, sum = i+1, sum+w
		}
		return out
	}
	// The limit that is just large enough, to within a thousandth of all. All that weigh 2*total+mean fit into one group.
	low, high := 0.0, 2*mean*float64(len(weights))
	found := []group{{0, len(weights)}}
	for range limitSteps {
		middle := (low + high) / 2
		if g := divide(middle); len(g) <= most {
			found, high = g, middle
		} else {
			low = middle
		}
	}
	return found
}

// limitSteps halve the range of limits. The limit sought is at least a most-th part of the whole, and most is about a
// hundred to a thousand.
const limitSteps = 20

// starts returns where the cells of all columns begin, ascending.
func starts(columns []Column) [][]byte {
	var all [][]byte
	seen := make(map[string]bool)
	for _, c := range columns {
		for i := range c.Cells {
			if at := c.Cells[i].Start; !seen[string(at)] {
				seen[string(at)] = true
				all = append(all, at)
			}
		}
	}
	slices.SortFunc(all, bytes.Compare)
	return all
}
