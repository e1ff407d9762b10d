package peer

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// given is a ready binary, if it is there.
func given(path string) (string, error) {
	found, err := exec.LookPath(path)
	if err != nil {
		return "", fmt.Errorf("find the server: %w", err)
	}
	return found, nil
}

// build compiles pkg of the module in folder (relative to the repository) into the
// repository's .cache and returns the binary. The Go build cache makes it cheap
// when nothing changed.
func build(ctx context.Context, folder, pkg, name string) (string, error) {
	root, err := Root(ctx)
	if err != nil {
		return "", err
	}
	out := filepath.Join(root, ".cache", "bin", name)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, pkg)
	cmd.Dir = filepath.Join(root, folder)
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s in %s: %w\n%s", pkg, cmd.Dir, err, text)
	}
	return out, nil
}

// Root is the folder of Flotilla's own module.
func Root(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/flotilla-kv/flotilla")
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the repository (run this inside it): %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
