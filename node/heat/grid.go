package heat

import (
	"bytes"
	"sort"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

// Grid is time by keys: a column for each Interval, the last of them now, and rows in the order of keys.
type Grid struct {
	// Rows are the keys at which rows start. Each ends where the next begins.
	Rows [][]byte
	// Columns are in the order of time. One that is nil is a gap.
	Columns [][]Square
}

// Square is one row in one column.
type Square struct {
	// Writes and Reads per second. A shard that is now several rows has an equal part in each: what it had where is not
	// known.
	Writes, Reads float64
	Known         bool
	// Shard is the busiest of the Shards that lie in the square, and Leader the node that led it.
	Shard  shard.ID
	Leader shard.NodeID
	Shards int
}

// Draw makes a grid that ends now, of at most so many rows (H3).
func Draw(columns []Column, now time.Time, rowsMax int) *Grid {
	g := &Grid{}
	for len(columns) > 0 && now.Sub(columns[0].At) >= time.Duration(columnsMax)*Interval {
		columns = columns[1:]
	}
	if len(columns) == 0 {
		return g
	}
	g.Rows = rows(columns, starts(columns), rowsMax)
	for ago := now.Sub(columns[0].At) / Interval; ago >= 0; ago-- {
		if c := nearest(columns, now.Add(-ago*Interval-Interval/2)); c != nil {
			g.Columns = append(g.Columns, squares(c.Cells, g.Rows))
		} else {
			g.Columns = append(g.Columns, nil)
		}
	}
	return g
}

// nearest returns the column nearest to a time. Columns are seldom exactly an Interval apart; what is further away than
// that explains is nil (H4).
func nearest(columns []Column, at time.Time) *Column {
	i := sort.Search(len(columns), func(i int) bool { return columns[i].At.After(at) })
	if i == len(columns) || i > 0 && at.Sub(columns[i-1].At) < columns[i].At.Sub(at) {
		i--
	}
	if columns[i].At.Sub(at).Abs() > Interval*3/4 {
		return nil
	}
	return &columns[i]
}

// rows chooses where rows start, of all places where cells do.
func rows(columns []Column, atoms [][]byte, most int) [][]byte {
	if len(atoms) <= most {
		return atoms
	}
	weights := make([]float64, len(atoms))
	for _, c := range columns {
		for i := range c.Cells {
			from, to := extent(c.Cells, i, atoms)
			for at := from; at < to; at++ {
				weights[at] += c.Cells[i].busy() / float64(to-from)
			}
		}
	}
	var out [][]byte
	for _, g := range groups(weights, most) {
		out = append(out, atoms[g.from])
	}
	return out
}

// extent returns the rows that a cell lies in, the first and the last of them perhaps in part.
func extent(cells []Cell, i int, rows [][]byte) (from, to int) {
	from = sort.Search(len(rows), func(at int) bool { return bytes.Compare(rows[at], cells[i].Start) > 0 }) - 1
	if i+1 == len(cells) {
		return from, len(rows)
	}
	end := cells[i+1].Start
	return from, from + sort.Search(len(rows)-from, func(at int) bool { return bytes.Compare(rows[from+at], end) >= 0 })
}

// squares lays a column's cells over the rows (H2).
func squares(cells []Cell, rows [][]byte) []Square {
	out := make([]Square, len(rows))
	tops := make([]float64, len(rows))
	for i := range cells {
		c := &cells[i]
		from, to := extent(cells, i, rows)
		for at := from; at < to; at++ {
			q, part := &out[at], c.busy()/float64(to-from)
			q.Writes += c.Writes / float64(to-from)
			q.Reads += c.Reads / float64(to-from)
			if q.Shards == 0 || c.Known && (!q.Known || part > tops[at]) {
				q.Shard, q.Leader, tops[at] = c.Shard, c.Leader, part
			}
			q.Known = q.Known || c.Known
			q.Shards += c.Shards
		}
	}
	return out
}
