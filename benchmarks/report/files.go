package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/flotilla-kv/flotilla/benchmarks/compare"
	"github.com/flotilla-kv/flotilla/benchmarks/scenario"
)

// Report is everything about one comparison, or about scenarios; later reports are made from its
// JSON form.
type Report struct {
	// Version rises when a field changes its meaning.
	Version int       `json:"version"`
	Started time.Time `json:"started"`
	Commit  string    `json:"commit"`
	Command string    `json:"command"`
	Machine Machine   `json:"machine"`
	// Peers contains the versions that are not in Commit.
	Peers map[string]string `json:"peers"`
	// Peaks are the peaks from which rates were derived: operations per second of the first system.
	Peaks        map[string]float64    `json:"peaks,omitempty"`
	Rows         []Row                 `json:"rows,omitempty"`
	Measurements []compare.Measurement `json:"measurements,omitempty"`
	Outcomes     []scenario.Outcome    `json:"outcomes,omitempty"`
}

// FormatVersion is the Version that this package writes.
const FormatVersion = 1

const resultsFile = "results.json"

// Read returns the report that Write put into dir.
func Read(dir string) (r Report, err error) {
	data, err := os.ReadFile(filepath.Join(dir, resultsFile))
	if err != nil {
		return r, fmt.Errorf("read the report: %w", err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("read the report in %s: %w", dir, err)
	}
	if r.Version != FormatVersion {
		return r, fmt.Errorf("read the report in %s: version %d, want %d", dir, r.Version, FormatVersion)
	}
	return r, nil
}

// Write puts results.json, results.md and the charts into dir.
func (r Report) Write(dir string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	files := r.charts()
	files[resultsFile], files["results.md"] = string(data)+"\n", r.Markdown()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return nil
}
