package dashboard

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/node/heat"
	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// heatRowsMax is how many rows the map has: as many as are legible, and little enough to send.
	heatRowsMax = 160
	// heatFreshFor is for how long one drawing answers everybody, unless there is a new column.
	heatFreshFor = 5 * time.Second
)

// Heat is the heat map. Columns are from the oldest to the one that is being filled, rows in the order of keys.
type Heat struct {
	Measure        string `json:"measure"`
	IntervalMillis int64  `json:"interval_millis"`
	// AgeMillis is how long ago the youngest column was recorded; -1: there is none.
	AgeMillis int64 `json:"age_millis"`
	// Rows are where rows start. The last one ends with the keyspace.
	Rows []string `json:"rows"`
	// Values are per second, by column and row. A column that is null is a gap.
	Values [][]Figure `json:"values"`
	// Owners has, for each row, what changes from column to column.
	Owners [][]Owner `json:"owners"`
}

// Owner is who has a row from a column on.
type Owner struct {
	Column int    `json:"c"`
	Shard  uint64 `json:"s"` // the busiest of the row
	Leader string `json:"l,omitempty"`
	Shards int    `json:"n"`
}

// Figure is a rate, with as many digits as can be told apart. It is null if it is unknown, which is a negative number.
type Figure float64

// MarshalJSON implements json.Marshaler.
func (f Figure) MarshalJSON() ([]byte, error) {
	switch {
	case f < 0:
		return []byte("null"), nil
	case f < 100:
		return strconv.AppendFloat(nil, math.Round(float64(f)*10)/10, 'f', -1, 64), nil
	default:
		return strconv.AppendInt(nil, int64(math.Round(float64(f))), 10), nil
	}
}

// UnmarshalJSON implements json.Unmarshaler.
func (f *Figure) UnmarshalJSON(text []byte) error {
	*f = -1
	if string(text) == "null" {
		return nil
	}
	v, err := strconv.ParseFloat(string(text), 64)
	*f = Figure(v)
	return err
}

// drawings keeps the last drawing of each measure (B4).
type drawings struct {
	sync.Mutex
	of map[string]drawing
}

type drawing struct {
	version uint64
	at      time.Time
	body    []byte
}

func (d *Dashboard) serveHeat(w http.ResponseWriter, r *http.Request) {
	measure := r.FormValue("measure")
	if measure == "" {
		measure = "writes"
	}
	if measure != "writes" && measure != "reads" {
		d.refuse(w, http.StatusBadRequest, fmt.Errorf("measure %q: want writes or reads", measure))
		return
	}
	body, err := d.heat(measure)
	if err != nil {
		d.refuse(w, http.StatusInternalServerError, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

func (d *Dashboard) heat(measure string) ([]byte, error) {
	columns, version := d.cfg.Heat()
	now := time.Now()
	d.drawings.Lock()
	defer d.drawings.Unlock()
	last := d.drawings.of[measure]
	if last.body != nil && last.version == version && now.Sub(last.at) < heatFreshFor {
		return last.body, nil
	}
	body, err := json.Marshal(draw(columns, now, measure, d.cfg.NodeName))
	if err != nil {
		return nil, fmt.Errorf("encode the heat map: %w", err)
	}
	d.drawings.of[measure] = drawing{version, now, body}
	return body, nil
}

func draw(columns []heat.Column, now time.Time, measure string, name func(shard.NodeID) string) *Heat {
	out := &Heat{Measure: measure, IntervalMillis: heat.Interval.Milliseconds(), AgeMillis: -1, Rows: []string{}, Values: [][]Figure{}, Owners: [][]Owner{}}
	if len(columns) > 0 {
		out.AgeMillis = now.Sub(columns[len(columns)-1].At).Milliseconds()
	}
	g := heat.Draw(columns, now, heatRowsMax)
	for _, at := range g.Rows {
		out.Rows = append(out.Rows, printable(at))
	}
	out.Owners = make([][]Owner, len(g.Rows))
	for i, squares := range g.Columns {
		if squares == nil {
			out.Values = append(out.Values, nil)
			continue
		}
		values := make([]Figure, len(squares))
		for row, q := range squares {
			values[row] = Figure(q.Writes)
			if measure == "reads" {
				values[row] = Figure(q.Reads)
			}
			one := Owner{Column: i, Shard: uint64(q.Shard), Shards: q.Shards}
			if !q.Known {
				values[row] = -1
			} else {
				one.Leader = name(q.Leader)
			}
			of := out.Owners[row]
			if n := len(of); n == 0 || of[n-1] != (Owner{of[n-1].Column, one.Shard, one.Leader, one.Shards}) {
				out.Owners[row] = append(of, one)
			}
		}
		out.Values = append(out.Values, values)
	}
	return out
}
