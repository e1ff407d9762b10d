package heat

import (
	"bytes"
	"time"
)

const (
	// Interval is the time between two columns. Rates are averages of about a minute, so that nothing falls between.
	Interval = 20 * time.Second
	// columnsMax is an hour.
	columnsMax = int(time.Hour / Interval)
	// cellsMax bounds a column: an hour of the busiest cluster takes about 6 MiB, and one of few shards next to nothing.
	cellsMax = 512
)

// Record holds the columns of the last hour. The zero value is empty.
type Record struct {
	columns []Column // in the order of time
	version uint64
}

// Add adds a column, unless there is one of about that time already: two nodes that led one after the other may both
// have taken one.
func (r *Record) Add(c Column) {
	if last := len(r.columns) - 1; last >= 0 {
		if c.At.Sub(r.columns[last].At) < Interval/2 {
			return
		}
		share(c.Cells, r.columns[last].Cells)
	}
	// What is too old is dropped also when columns are rare. The array is not written to again: readers have it.
	from := 0
	for from < len(r.columns) && (c.At.Sub(r.columns[from].At) > time.Duration(columnsMax)*Interval || len(r.columns)-from >= columnsMax) {
		from++
	}
	r.columns = append(append(make([]Column, 0, columnsMax), r.columns[from:]...), c)
	r.version++
}

// share lets cells have the keys of others where they are the same, so that a key that stays is kept once.
func share(cells, others []Cell) {
	at := 0
	for i := range cells {
		for at < len(others) && bytes.Compare(others[at].Start, cells[i].Start) < 0 {
			at++
		}
		if at < len(others) && bytes.Equal(others[at].Start, cells[i].Start) {
			cells[i].Start = others[at].Start
		}
	}
}

// Columns returns what is kept, in the order of time, and a number that rises with each change. It is not to be changed.
func (r *Record) Columns() ([]Column, uint64) { return r.columns, r.version }

// Since returns the columns of after a time.
func (r *Record) Since(at time.Time) []Column {
	from := len(r.columns)
	for from > 0 && r.columns[from-1].At.After(at) {
		from--
	}
	return r.columns[from:]
}

// Last is the time of the youngest column; zero without one.
func (r *Record) Last() time.Time {
	if len(r.columns) == 0 {
		return time.Time{}
	}
	return r.columns[len(r.columns)-1].At
}
