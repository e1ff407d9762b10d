package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/flotilla-kv/flotilla/benchmarks/compare"
)

// Report is everything about one comparison; its JSON form is what later reports
// are made from.
type Report struct {
	// Version rises when a field changes its meaning.
	Version int       `json:"version"`
	Started time.Time `json:"started"`
	Commit  string    `json:"commit"`
	Command string    `json:"command"`
	Machine Machine   `json:"machine"`
	// Peers tells the versions that are not in Commit.
	Peers        map[string]string     `json:"peers"`
	Rows         []Row                 `json:"rows"`
	Measurements []compare.Measurement `json:"measurements"`
}

// FormatVersion is the Version of what this package writes.
const FormatVersion = 1

// Write puts results.json and results.md into dir.
func (r Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	for name, text := range map[string]string{"results.json": string(data) + "\n", "results.md": r.Markdown()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return nil
}

// Markdown is the table with what is needed to read and to repeat it.
func (r Report) Markdown() string {
	return fmt.Sprintf("%s\n\nCommit %s, %s.\n%s.\n\n`%s`\n",
		Table(r.Rows).RenderMarkdown(), r.Commit, r.Started.UTC().Format(time.DateTime), r.Machine, r.Command)
}
