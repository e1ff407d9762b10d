package conformance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Record asks the server at endpoint everything and writes its answers below dir.
// The server must be a real etcd that was never compacted.
func Record(ctx context.Context, endpoint, dir string) error {
	a, err := dial(endpoint)
	if err != nil {
		return err
	}
	defer func() { _ = a.close() }()
	for _, script := range Corpus() {
		exchanges, err := record(ctx, a, script)
		if err != nil {
			return fmt.Errorf("record %s: %w", script.Name, err)
		}
		path := filepath.Join(dir, script.Name+".txt")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("record %s: %w", script.Name, err)
		}
		if err := os.WriteFile(path, []byte(format(script, exchanges)), 0o644); err != nil {
			return fmt.Errorf("record %s: %w", script.Name, err)
		}
	}
	return nil
}

func record(ctx context.Context, a *asker, script Script) ([]exchange, error) {
	r, err := begin(ctx, a)
	if err != nil {
		return nil, err
	}
	shapes := make([]string, len(script.Steps))
	revisions := make([][]int64, len(script.Steps))
	all := []int64{r.revisions[base]}
	for i, s := range script.Steps {
		if shapes[i], revisions[i], err = r.step(ctx, i, s); err != nil {
			return nil, err
		}
		all = append(all, revisions[i]...)
	}
	rank := rankOf(all)
	exchanges := make([]exchange, len(script.Steps))
	for i, s := range script.Steps {
		ranks := make([]int, len(revisions[i]))
		for j, revision := range revisions[i] {
			ranks[j] = rank[revision]
		}
		exchanges[i] = exchange{Question: question(s), Answer: withRanks(shapes[i], ranks)}
	}
	return exchanges, nil
}
